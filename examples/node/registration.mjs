// A registration as a Node service runs it: phases of parallel sub-steps, each change durable when it is awaited.
//
//   node registration.mjs URL KEY [EFFECTS]      STEPLOG_TOKEN may hold a token; EFFECTS is a file that notes each run
//
// Kill it and start it again with the same KEY: what was completed does not run again.

import { appendFileSync } from "node:fs";
import { openRecorder } from "./recorder.mjs";

const PHASES = {
  phase1: ["codeGeneration", "uploadImages"],
  phase2: ["restaurantRegistration", "menuImport", "websiteConfig"],
};
const [url, key, effects] = process.argv.slice(2);
const killAfter = Number(process.env.KILL_AFTER ?? Infinity);
let changes = 0;

const recorder = await openRecorder({
  url, key, token: process.env.STEPLOG_TOKEN, workflow: "node-registration", phases: PHASES, input: { restaurant: key },
});
const phaseProgress = structuredClone(recorder.snapshot); // what is known of the job, also after a crash
console.log(`job ${recorder.jobId}`);

async function subStep(name, work) {
  const before = Object.values(phaseProgress.phases).find((phase) => phase.sub_steps[name]).sub_steps[name];
  if (before.status === "completed") return console.log(`${name}: done before`);
  await change(name, "in_progress");
  if (effects) appendFileSync(effects, `${recorder.idempotencyKey(name)}\n`);
  const result = await work();
  await change(name, "completed", { result });
  console.log(`${name}: completed`);
}

async function change(...of) {
  await recorder.updateSubStepInProgress(phaseProgress, ...of);
  if (++changes >= killAfter) process.kill(process.pid, "SIGKILL");
}

const takes = (ms, result) => () => new Promise((resolve) => setTimeout(resolve, ms, result));

for (const [number, [phase, names]] of Object.entries(PHASES).entries()) {
  await recorder.updatePhaseProgress(recorder.jobId, number + 1, phase, "in_progress", phaseProgress);
  await Promise.allSettled(names.map((name) => subStep(name, takes(20, `${name} of ${key}`))));
  await recorder.updatePhaseProgress(recorder.jobId, number + 1, phase, "completed", phaseProgress);
}
await recorder.complete();
console.log("completed");
