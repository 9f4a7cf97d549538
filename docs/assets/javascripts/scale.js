// The calculator on the page "How RLlib scales". The same formula stands in extensions/scaling.py;
// a test compares the two.

const MINIBATCH = 128;

function foretell(model, x) {
  const happens = {
    vector_step: x.batch / x.envs,
    env_step: x.batch,
    wake: x.wait > 0 ? x.batch : 0,
    once: 1,
    runner: x.runners,
    fragment: x.runners * x.envs + x.batch / x.length,
    gradient_step: x.epochs * Math.ceil(x.batch / MINIBATCH),
  };
  const takes = (part) =>
    Object.entries(model[part]).reduce((sum, [term, seconds]) => sum + seconds * happens[term], 0);
  const work = (takes("cpu") + x.batch * x.compute) / x.runners;
  const waits = (x.batch * x.wait) / x.runners;
  const cores = x.cores || x.runners;
  const machines = Math.ceil(x.runners / x.per_machine);
  const sent = (takes("bytes") * (machines - 1)) / machines + model.weights_bytes * (machines - 1);
  const parts = {
    sampling: Math.max(work + waits, (work * x.runners) / cores) + takes("collect"),
    learning: takes("learn"),
    weights: takes("weights"),
    rest: takes("rest"),
    network: sent / (x.network * 1.25e8),
  };
  parts.iteration = Object.values(parts).reduce((sum, seconds) => sum + seconds, 0);
  parts.env_steps_per_second = x.batch / parts.iteration;
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
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    show();
    form.hidden = false;
  }
}
