// Parses and rewrites lines of JSON as JavaScript does. (It does not use readline, which treats U+2028 as the end of a
// line.)
import { readFileSync } from "node:fs";

for (const line of readFileSync(0, "utf8").split("\n")) {
  if (line !== "") process.stdout.write(JSON.stringify(JSON.parse(line)) + "\n");
}
