// node-resque: https://github.com/actionhero/node-resque. Its MultiWorker runs several workers in one process.
import resque from "node-resque";
import { command, concurrency, connection, enqueueAll, job } from "./interface.mjs";

if (command === "work") {
  const options = { connection, queues: ["bench"], minTaskProcessors: concurrency(), maxTaskProcessors: concurrency() };
  const worker = new resque.MultiWorker(options, { noop: { perform: ({ number }) => job(number) } });
  worker.on("error", (error) => console.error(String(error)));
  await worker.start();
} else {
  const queue = new resque.Queue({ connection }, {});
  await queue.connect();
  await enqueueAll((number, text) => queue.enqueue("bench", "noop", [{ number, text }]));
  await queue.end();
}
