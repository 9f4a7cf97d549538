// A simulator that is not Python: CartPole-v1, with the physics of Gymnasium's.
//   node cartpole.js PORT      plays it for whoever connects: one line of JSON in,
//                              one out. `null` begins an episode, 0 or 1 is an action.
const LIMIT = 12 * Math.PI / 180; // a pole that leans further has fallen

class CartPole {
  constructor(random = Math.random) {
    this.random = random;
  }

  reset() {
    this.state = [0, 0, 0, 0].map(() => this.random() * 0.1 - 0.05);
    this.steps = 0;
    return { observation: this.state };
  }

  step(action) {
    let [x, v, angle, w] = this.state;
    const [sin, cos] = [Math.sin(angle), Math.cos(angle)];
    const push = ((action === 1 ? 10 : -10) + 0.05 * w * w * sin) / 1.1;
    const turn = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos * cos / 1.1));
    const pull = push - 0.05 * turn * cos / 1.1;
    [x, v, angle, w] = [x + 0.02 * v, v + 0.02 * pull, angle + 0.02 * w, w + 0.02 * turn];
    this.state = [x, v, angle, w];
    const terminated = Math.abs(x) > 2.4 || Math.abs(angle) > LIMIT;
    const truncated = ++this.steps === 500;
    return { observation: this.state, reward: 1, terminated, truncated };
  }
}

// A program that starts this one by a pipe takes it along, however that program ends.
function endWithParent() {
  if (!require("node:fs").fstatSync(0).isFIFO()) return;
  process.stdin.resume().on("end", () => process.exit());
}

module.exports = { CartPole, endWithParent };

if (require.main === module) {
  const server = require("node:net").createServer((socket) => {
    const world = new CartPole(); // one for each who connects
    socket.on("error", () => {}); // who was there is gone
    require("node:readline").createInterface({ input: socket }).on("line", (line) => {
      try {
        const action = JSON.parse(line);
        const answer = action === null ? world.reset() : world.step(action);
        socket.write(JSON.stringify(answer) + "\n");
      } catch {
        socket.destroy(); // this one does not speak as we do
      }
    });
  });
  server.listen(Number(process.argv[2]), "127.0.0.1");
  endWithParent();
}
