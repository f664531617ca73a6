// The real node-resque at the other end of a pipe. It takes commands as lines of JSON on its standard input,
//   {"number", "namespace", "kind": "queue" | "worker" | "multiWorker" | "scheduler" | "peer", "options", "method", "args"}
// and answers each with a line {"number", "result"} or {"number", "error"}. The first command for a kind creates it, with
// these options. Later commands use the same object.
//
// node peer.mjs PORT
import { createInterface } from "node:readline";
import resque from "node-resque";

const port = Number(process.argv[2]);
const { Queue, Worker, MultiWorker, Scheduler } = resque;
const classes = { queue: Queue, worker: Worker, multiWorker: MultiWorker, scheduler: Scheduler };
const made = new Map();
const errors = [];

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// Each job appends its arguments to the list `NS:notes`. `hold` runs until the key `NS:release` exists.
function jobs(namespace) {
  const { connection } = made.get(`${namespace} queue`);
  const note = async (...args) => {
    const text = JSON.stringify({ by: "node", args });
    await connection.redis.rpush(`${namespace}:notes`, text);
  };
  return {
    note: { perform: note },
    sendEmail: { perform: note },
    fail: { perform: async (text) => { throw new TypeError(text); } },
    nap: { perform: async (number) => { await pause(5); await note(number); } },
    hold: {
      perform: async () => {
        await note("holding");
        while (!(await connection.redis.exists(`${namespace}:release`))) await pause(10);
      },
    },
  };
}

async function find(namespace, kind, options = {}) {
  if (kind === "peer") return { errors: () => errors.splice(0), endAll: () => endAll(namespace) };
  const key = `${namespace} ${kind}`;
  if (!made.has(key)) {
    const connection = { host: "127.0.0.1", port, namespace };
    if (kind === "queue") {
      made.set(key, new Queue({ connection }));
    } else {
      await find(namespace, "queue");
      made.set(key, new classes[kind]({ connection, ...options }, jobs(namespace)));
    }
    const it = made.get(key);
    it.on("error", (error) => errors.push(`${kind}: ${error}`));
    if (kind !== "multiWorker") await it.connect();
  }
  return made.get(key);
}

async function endAll(namespace) {
  for (const kind of ["worker", "multiWorker", "scheduler", "queue"]) {
    await made.get(`${namespace} ${kind}`)?.end();
    made.delete(`${namespace} ${kind}`);
  }
}

async function answer({ number, namespace, kind, options, method, args }) {
  try {
    const it = await find(namespace, kind, options);
    const result = typeof it[method] === "function" ? await it[method](...args) : it[method];
    if (method === "end" || method === "stop") made.delete(`${namespace} ${kind}`);
    const plain = ["string", "number", "boolean", "object"].includes(typeof result) && kind !== "multiWorker";
    return { number, result: plain ? result : null };
  } catch (error) {
    return { number, error: String(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  answer(JSON.parse(line)).then((found) => process.stdout.write(JSON.stringify(found) + "\n"));
}
process.exit(0);
