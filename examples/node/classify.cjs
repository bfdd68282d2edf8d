// Run an exported model on frames that examples/write_frames.py wrote. Print one JSON line for each frame.
//
//     npm install --ignore-scripts
//     node classify.cjs model.int8.onnx frames.raw
//
// The model takes uint8 RGB of shape (N, size, size, 3). Scaling and calibration happen inside the graph, so this
// program neither scales the pixels nor changes the probabilities.
"use strict";

const fs = require("node:fs");
const ort = require("onnxruntime-node");

const BATCH = 16;

async function main(model, frames) {
  const session = await ort.InferenceSession.create(model, { intraOpNumThreads: 2 });
  const [, size] = session.inputMetadata[0].shape;
  const labels = fs.readFileSync(frames.replace(/\.[^.]*$/, ".labels"), "utf8").trimEnd().split("\n");
  const bytes = size * size * 3;
  const pixels = fs.readFileSync(frames);
  if (pixels.length === 0 || pixels.length % bytes !== 0) {
    throw new Error(`${frames} has ${pixels.length} bytes, expected a multiple of ${bytes} (${size} x ${size} x 3)`);
  }
  const count = pixels.length / bytes;
  for (let first = 0; first < count; first += BATCH) {
    const after = Math.min(first + BATCH, count);
    const input = new ort.Tensor(
      "uint8", new Uint8Array(pixels.subarray(first * bytes, after * bytes)), [after - first, size, size, 3]);
    const { probabilities } = await session.run({ [session.inputNames[0]]: input }, ["probabilities"]);
    for (let at = 0; at < after - first; at++) {
      const values = Array.from(probabilities.data.subarray(at * labels.length, (at + 1) * labels.length));
      const best = values.indexOf(Math.max(...values));
      console.log(JSON.stringify({
        index: first + at, label: labels[best], probability: values[best], probabilities: values }));
    }
  }
}

const [model, frames] = process.argv.slice(2);
if (!model || !frames) {
  console.error("usage: node classify.cjs MODEL.onnx FRAMES.raw");
  process.exit(2);
}
main(model, frames).catch((error) => {
  console.error(`error: ${error.message}`);
  process.exit(1);
});
