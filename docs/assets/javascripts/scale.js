// The calculator on the page "How RLlib scales". The same formula stands in extensions/scaling.py;
// a test compares the two.

const LENGTH = 200;
const MINIBATCH = 128;

function foretell(model, x) {
  const batch = Math.max(x.batch, x.runners * x.envs);
  const fragments = x.runners * x.envs + batch / LENGTH;
  const happens = {
    vector_step: batch / x.envs,
    env_step: batch,
    wake: x.wait > 0 ? batch : 0,
    once: 1,
    runner: x.runners,
    fragment: fragments,
    gradient_step: Math.ceil((x.epochs * (batch + fragments)) / MINIBATCH),
  };
  const takes = (part) =>
    Object.entries(model[part]).reduce((sum, [term, seconds]) => sum + seconds * happens[term], 0);
  const work = (takes("cpu") + batch * x.compute) / x.runners;
  const waits = (batch * x.wait) / x.runners;
  const cores = x.cores || x.runners;
  const machines = Math.ceil(x.runners / x.per_machine);
  const elsewhere = Math.max(0, x.runners - x.per_machine) / x.runners;
  const sent = takes("bytes") * elsewhere + model.weights_bytes * (machines - 1);
  const parts = {
    sampling: Math.max(work + waits, (work * x.runners) / cores) + takes("collect"),
    learning: takes("learn"),
    weights: takes("weights"),
    rest: takes("rest"),
    network: sent / (x.network * 1.25e8),
  };
  parts.iteration = Object.values(parts).reduce((sum, seconds) => sum + seconds, 0);
  parts.env_steps_per_second = batch / parts.iteration;
  parts.idle = 1 - (work + waits) / parts.iteration;
  return parts;
}

if (typeof document !== "undefined") {
  for (const form of document.querySelectorAll("form.calculator")) {
    const model = JSON.parse(form.dataset.model);
    const show = () => {
      const x = {};
      let valid = true;
      for (const input of form.querySelectorAll("input")) {
        x[input.name] = input.valueAsNumber * Number(input.dataset.unit);
        valid = valid && input.validity.valid && Number.isFinite(x[input.name]);
      }
      const found = valid ? foretell(model, x) : {};
      for (const output of form.querySelectorAll("output")) {
        const value = found[output.name];
        if (value === undefined) output.value = "–";
        else if (output.name === "idle") output.value = (100 * value).toFixed(0) + " %";
        else if (output.name === "env_steps_per_second") output.value = Math.round(value).toLocaleString("en");
        else output.value = value.toFixed(value < 9.995 ? 2 : 1) + " s";
      }
    };
    // Read aloud when a number is settled, not at each key.
    const say = () => {
      const [seconds, rate] = ["iteration", "env_steps_per_second"].map((name) => form.elements[name].value);
      form.querySelector(".said").textContent = `Iteration ${seconds}, ${rate} env steps a second`;
    };
    form.addEventListener("input", show);
    form.addEventListener("change", say);
    form.addEventListener("submit", (event) => event.preventDefault());
    show();
    form.hidden = false;
  }
}
