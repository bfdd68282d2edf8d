// Read a recording with capsule-edge in a separate process. Print each event as soon as it closes. Needs no package.
//
//     node follow.cjs exam.mp4 --out result
//
// Set CAPSULE_EDGE to the path of the command if it is not on PATH. All arguments are passed to `capsule-edge run`.
"use strict";

const { spawn } = require("node:child_process");
const readline = require("node:readline");

const run = spawn(process.env.CAPSULE_EDGE || "capsule-edge", ["run", ...process.argv.slice(2), "--jsonl"],
  { stdio: ["ignore", "pipe", "inherit"] });
run.on("error", (error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
});
run.on("close", (code) => { process.exitCode ||= code ?? 1; });

// The run waits until this program has read its lines, so nothing accumulates.
readline.createInterface({ input: run.stdout }).on("line", (text) => {
  const line = JSON.parse(text);
  if (line.type === "event") {
    console.log(`${line.label} from ${line.start_s} s to ${line.end_s} s, at most ${line.peak_p}`);
  } else if (line.type === "end") {
    console.log(`${line.ledger.classified} of ${line.ledger.container} frames classified, ${line.events} events`);
  } else if (line.type === "error") {
    console.error(`error: ${line.error.message} ${line.error.hint}`.trim());
  }
});
