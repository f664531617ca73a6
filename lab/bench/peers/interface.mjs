// What the programs in Node share: see interface.py.
import { openSync, writeSync } from "node:fs";

export const [, , command, ...numbers] = process.argv;
export const url = new URL(process.env.REDIS_URL);
export const connection = { host: url.hostname, port: Number(url.port) };

const text = "x".repeat(64);
const file = process.env.RECORD ? openSync(process.env.RECORD, "a") : -1;
// End when the runner ends. It holds the other end of our standard input, which then closes, even after a kill.
if (command === "work") process.stdin.on("end", () => process.exit(1)).resume();

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

export const concurrency = () => Number(numbers[0]);

export async function job(number) {
  const milliseconds = Number(numbers[1]);
  if (milliseconds) {
    record(-1 - number);
    await pause(milliseconds);
  }
  record(number);
}

const record = (number) => writeSync(file, `${number} ${process.hrtime.bigint()}\n`);

export async function enqueueAll(enqueue) {
  const [first, count, callers, pauseMs] = numbers.map(Number);
  const asked = {};
  let next = first;
  const call = async () => {
    while (next < first + count) {
      const number = next++;
      if (pauseMs) {
        await pause(pauseMs);
        asked[number] = Number(process.hrtime.bigint());
      }
      await enqueue(number, text);
    }
  };
  const started = performance.now();
  await Promise.all(Array.from({ length: callers }, call));
  console.log(JSON.stringify({ seconds: (performance.now() - started) / 1000, asked_ns: asked }));
}
