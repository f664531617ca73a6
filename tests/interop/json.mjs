// How JavaScript itself writes what it has read: one line of JSON in, one line out.
import { createInterface } from "node:readline";

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(JSON.parse(line)) + "\n");
}
