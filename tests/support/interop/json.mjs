// How JavaScript itself writes what it has read: lines of JSON in, lines of JSON out. (Not with readline, for which U+2028
// ends a line.)
import { readFileSync } from "node:fs";

for (const line of readFileSync(0, "utf8").split("\n")) {
  if (line !== "") process.stdout.write(JSON.stringify(JSON.parse(line)) + "\n");
}
