// BullMQ: https://docs.bullmq.io
import { Queue, Worker } from "bullmq";
import { command, concurrency, connection, enqueueAll, job } from "./interface.mjs";

if (command === "work") {
  const options = { connection, concurrency: concurrency(), removeOnComplete: { count: 0 } };
  const worker = new Worker("bench", ({ data }) => job(data.number), options);
  worker.on("error", (error) => console.error(String(error)));
} else {
  const queue = new Queue("bench", { connection });
  await enqueueAll((number, text) => queue.add("noop", { number, text }));
  await queue.close();
}
