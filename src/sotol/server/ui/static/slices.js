// Work in slices: what is long is done a few milliseconds at a time, and the page answers between them.

const SLICE_MS = 8;
const queue = [];
let running = false;

// A message to oneself comes after what the browser has to do, and without the delay of timers.
const channel = new MessageChannel();
const turn = () =>
  new Promise((resolve) => {
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(null);
  });

/** Run a step when there is time. first: before all others that wait. */
export function later(step, first = false) {
  if (first) queue.unshift(step);
  else queue.push(step);
  if (!running) {
    running = true;
    run();
  }
}

async function run() {
  while (queue.length > 0) {
    const begin = performance.now();
    while (queue.length > 0 && performance.now() - begin < SLICE_MS) {
      try {
        await queue.shift()();
      } catch (error) {
        console.error(error);
      }
    }
    await turn();
  }
  running = false;
}
