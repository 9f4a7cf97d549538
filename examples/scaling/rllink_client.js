// Connects a simulator to RLlib by RLlink, and connects again when it was cut.
//   node rllink_client.js PORT STEPS [SEED]      STEPS: of one batch
// It is for PPO, one flat observation, discrete actions and a network of tanh layers.
const { connect } = require("node:net");
const { once } = require("node:events");
const { CartPole, endWithParent } = require("./cartpole.js");

const [port, STEPS, seed = 0] = process.argv.slice(2).map(Number);

// A random number between 0 and 1, from a seed (Mulberry32).
let state = seed;
function random() {
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
}

// MessagePack: of its forms only those with 32 bits of length, which is enough.
function number(code, size, write, value) {
  const bytes = Buffer.alloc(1 + size, code);
  bytes[write](value, 1);
  return bytes;
}
const head = (code, length) => number(code, 4, "writeUInt32BE", length);

function pack(x) {
  if (x === null) return Buffer.from([0xc0]);
  if (typeof x === "boolean") return Buffer.from([x ? 0xc3 : 0xc2]);
  if (Number.isInteger(x)) return number(0xd2, 4, "writeInt32BE", x);
  if (typeof x === "number") return number(0xcb, 8, "writeDoubleBE", x);
  if (typeof x === "string") return Buffer.concat([head(0xdb, Buffer.byteLength(x)), Buffer.from(x)]);
  if (Buffer.isBuffer(x)) return Buffer.concat([head(0xc6, x.length), x]);
  if (Array.isArray(x)) return Buffer.concat([head(0xdd, x.length), ...x.map(pack)]);
  const pairs = x instanceof Map ? [...x] : Object.entries(x);
  return Buffer.concat([head(0xdf, pairs.length), ...pairs.flat().map(pack)]);
}

function unpack(bytes) {
  let at = 0;
  const take = (n) => bytes.subarray(at, (at += n));
  const uint = (n) => take(n).readUIntBE(0, n);
  const list = (n) => Array.from({ length: n }, value);
  const map = (n) => Object.fromEntries(Array.from({ length: n }, () => [String(value()), value()]));
  function value() {
    const code = uint(1);
    if (code < 0x80) return code;
    if (code < 0x90) return array(map(code & 0x0f));
    if (code < 0xa0) return list(code & 0x0f);
    if (code < 0xc0) return String(take(code & 0x1f));
    if (code >= 0xe0) return code - 0x100;
    if (code === 0xc0) return null;
    if (code === 0xc2 || code === 0xc3) return code === 0xc3;
    if (code >= 0xc4 && code <= 0xc6) return take(uint(1 << (code - 0xc4)));
    if (code === 0xca) return take(4).readFloatBE();
    if (code === 0xcb) return take(8).readDoubleBE();
    if (code >= 0xcc && code <= 0xce) return uint(1 << (code - 0xcc));
    if (code >= 0xd9 && code <= 0xdb) return String(take(uint(1 << (code - 0xd9))));
    if (code === 0xdc || code === 0xdd) return list(uint(code === 0xdc ? 2 : 4));
    if (code === 0xde || code === 0xdf) return array(map(uint(code === 0xde ? 2 : 4)));
    throw new Error(`MessagePack type 0x${code.toString(16)} is not known here`);
  }
  return value();
}

// NumPy's arrays travel as maps whose keys are bytes, as the package msgpack-numpy writes them.
function ndarray(values, shape, type = "<f4") {
  const data = Buffer.alloc(4 * values.length);
  values.forEach((x, i) => (type === "<f4" ? data.writeFloatLE(x, 4 * i) : data.writeInt32LE(x, 4 * i)));
  const fields = { nd: true, type, kind: Buffer.alloc(0), shape, data };
  return new Map(Object.entries(fields).map(([key, x]) => [Buffer.from(key), x]));
}

function array(map) {
  if (!("nd" in map)) return map;
  if (map.nd && map.type !== "<f4") throw new Error(`an array of ${map.type} is not known here`);
  if (!map.nd) return map.data; // one number: not needed here
  const values = Array.from({ length: map.data.length / 4 }, (_, i) => map.data.readFloatLE(4 * i));
  return Object.assign(values, { shape: map.shape });
}

// The network: tanh layers, then the logits. RLlib numbers the layers with gaps.
function logitsOf(weights, observation) {
  const layers = Object.keys(weights)
    .filter((name) => /^(encoder\.actor_encoder|pi)\..*weight$/.test(name));
  return layers.reduce((inputs, name, i) => {
    const [weight, bias] = [weights[name], weights[name.replace("weight", "bias")]];
    if (weight.shape[1] !== inputs.length) throw new Error(`${name} does not fit: another network?`);
    const outputs = bias.map((b, row) =>
      inputs.reduce((sum, x, column) => sum + x * weight[row * inputs.length + column], b));
    return i < layers.length - 1 ? outputs.map(Math.tanh) : outputs;
  }, observation);
}

function act(weights, observation) {
  const logits = logitsOf(weights, observation);
  const top = Math.max(...logits);
  const odds = logits.map((x) => Math.exp(x - top));
  const total = odds.reduce((sum, x) => sum + x);
  let action = 0;
  for (let rest = random() - odds[0] / total; rest > 0 && action < odds.length - 1;) {
    rest -= odds[++action] / total;
  }
  return { action, logits, logp: logits[action] - top - Math.log(total) };
}

// Part of an episode, in the form of RLlib's SingleAgentEpisode.get_state().
class Part {
  constructor(id, t, observation) {
    Object.assign(this, { id, t, observations: [observation], actions: [], rewards: [] });
    Object.assign(this, { logits: [], logps: [], terminated: false, truncated: false });
  }

  message() {
    const length = this.actions.length;
    const buffer = (data, finalized = true) => ({ data, lookback: 0, finalized, space: null });
    const rows = (x) => buffer(ndarray(x.flat(), [x.length, x[0].length]));
    return {
      id_: this.id, agent_id: null, module_id: null, multi_agent_episode_id: null,
      observations: rows(this.observations),
      actions: buffer(ndarray(this.actions, [length], "<i4")),
      rewards: buffer(ndarray(this.rewards, [length])),
      infos: buffer(this.observations.map(() => ({})), false),
      extra_model_outputs: {
        action_dist_inputs: rows(this.logits),
        action_logp: buffer(ndarray(this.logps, [length])),
      },
      is_terminated: this.terminated, is_truncated: this.truncated,
      t_started: this.t, t: this.t + length,
      _observation_space: null, _action_space: null,
      _start_time: null, _last_step_time: null, custom_data: {},
    };
  }
}

// Messages: eight digits with the length of what follows, in MessagePack.
async function* received(socket) {
  let bytes = Buffer.alloc(0);
  for await (const chunk of socket) {
    bytes = Buffer.concat([bytes, chunk]);
    for (let end; bytes.length >= 8 && bytes.length >= (end = 8 + Number(bytes.subarray(0, 8)));) {
      yield unpack(bytes.subarray(8, end));
      bytes = bytes.subarray(end);
    }
  }
}

async function session() {
  const socket = connect(port, "127.0.0.1");
  await once(socket, "connect");
  socket.on("error", () => {}); // whoever waits for an answer gets it
  const answers = received(socket);
  const ask = async (message) => {
    const body = pack(message);
    socket.write(String(body.length).padStart(8, "0"));
    socket.write(body);
    const answer = await answers.next();
    if (answer.done) throw Object.assign(new Error("cut"), { code: "CUT" });
    return answer.value;
  };

  await ask({ type: "PING" });
  let weights = (await ask({ type: "GET_STATE" })).state.rl_module;
  const world = new CartPole(random);
  const begin = () => new Part(String(random()).slice(2), 0, world.reset().observation);
  let part = begin(), parts = [part], steps = 0;
  for (;;) {
    const { action, logits, logp } = act(weights, part.observations.at(-1));
    const { observation, reward, terminated, truncated } = world.step(action);
    part.observations.push(observation);
    part.actions.push(action);
    part.rewards.push(reward);
    part.logits.push(logits);
    part.logps.push(logp);
    Object.assign(part, { terminated, truncated });
    const done = terminated || truncated;
    const full = ++steps === STEPS;
    if (full) { // send all, and wait until RLlib has learned from it
      const episodes = parts.map((each) => each.message());
      weights = (await ask({ type: "EPISODES_AND_GET_STATE", episodes })).state.rl_module;
      parts = [];
      steps = 0;
    }
    if (done) parts.push((part = begin()));
    else if (full) parts.push((part = new Part(part.id, part.t + part.actions.length, observation)));
  }
}

async function main() {
  for (;;) {
    await session().catch((error) => {
      if (!error.code) throw error; // not a cut: to try again would not help
      if (error.code !== "ECONNREFUSED") console.error(`${error.message}: connecting again`);
    });
    await new Promise((wake) => setTimeout(wake, 500));
  }
}
endWithParent();
main();
