// Makes a Node service's sub-step progress durable in steplog, over HTTP and without packages.
//
//   const recorder = await openRecorder({ url, token, workflow: "registration", key: jobId, phases });
//   await recorder.updateSubStepInProgress(phaseProgress, "menuImport", "in_progress");
//   await recorder.updatePhaseProgress(jobId, 1, "phase2", "completed", phaseProgress);
//
// The two functions change the progress object as they always did. Awaited, the change is on disk; not awaited, it is on
// its way, and everything after it waits its turn. After a crash the same key gives the job back with what was done.

import { randomUUID } from "node:crypto";

const RETRY_MS = [100, 300, 1000, 3000, 10000];

export async function openRecorder({ url, token, workflow, key, phases, input = null }) {
  const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };

  async function post(path, body) {
    for (let tries = 0; ; tries++) {
      let answer;
      try {
        answer = await fetch(`${url}/api/v1${path}`, { method: "POST", headers, body: JSON.stringify(body) });
      } catch (error) {
        if (tries >= RETRY_MS.length) throw error; // the server is away: the same events again are stored once
      }
      if (answer?.ok) return answer.json();
      if (answer && answer.status < 500 && answer.status !== 429) return refusal(await answer.json());
      if (tries >= RETRY_MS.length) return refusal(await answer.json());
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS[tries]));
    }
  }

  const opened = await post(`/workflows/${encodeURIComponent(workflow)}/jobs`, {
    mode: "recorded", key, input, plan: phases,
  });
  return new Recorder(post, opened, phases);
}

function refusal(problem) {
  if (problem.type === "urn:steplog:problem:behind") return problem;
  const error = new Error(`${problem.detail}${problem.hint ? `; ${problem.hint}` : ""}`);
  throw Object.assign(error, { problem });
}

class Recorder {
  constructor(post, opened, phases) {
    this.jobId = opened.job_id;
    this.snapshot = opened.snapshot;
    this.#post = post;
    this.#claim = opened.claim;
    this.#version = opened.version;
    for (const [phase, names] of Object.entries(phases))
      for (const name of names) this.#places.set(name, { phase, ...opened.snapshot.phases[phase].sub_steps[name] });
    for (const [phase, of] of Object.entries(opened.snapshot.phases)) this.#phases.set(phase, of.status);
  }

  #post; #claim; #version;
  #places = new Map();
  #phases = new Map();
  #turn = Promise.resolve();

  // What the service kept in memory only: now durable when the promise is fulfilled.
  updateSubStepInProgress(phaseProgress, subStepName, status, data = {}) {
    for (const phase of Object.values(phaseProgress.phases)) {
      if (phase.sub_steps?.[subStepName]) {
        phase.sub_steps[subStepName] = { ...phase.sub_steps[subStepName], status, ...data };
        break;
      }
    }
    return this.#append(this.#ofSubStep(subStepName, status, data));
  }

  // What the service wrote at the phase's ends only, over what had been there.
  updatePhaseProgress(jobId, stepNumber, phaseName, status, phaseProgress) {
    phaseProgress.current_phase = phaseName;
    phaseProgress.phases[phaseName].status = status;
    return this.#append(this.#ofPhase(phaseName, status));
  }

  // The job is done; nothing comes after it.
  complete() {
    return this.#append([["JobCompleted", {}]]);
  }

  // The idempotency key of a sub-step: the same for every attempt, for whatever it calls.
  idempotencyKey(subStepName) {
    return `${this.jobId}/${this.#places.get(subStepName).phase}/${subStepName}`;
  }

  #ofSubStep(name, status, data) {
    const place = this.#places.get(name);
    if (!place) throw new Error(`no sub-step ${name}`);
    const events = this.#ofPhase(place.phase, "in_progress");
    const begins = status === "in_progress" || (status !== "skipped" && place.status !== "in_progress");
    const of = { phase: place.phase, sub_step: name, generation: place.generation };
    if (begins) {
      place.attempts += 1;
      place.began = Date.now();
      events.push(["SubStepStarted", { ...of, attempt: place.attempts, idempotency_key: this.idempotencyKey(name) }]);
    }
    const attempt = place.attempts;
    const seconds = (Date.now() - (place.began ?? Date.now())) / 1000;
    const error = { type: "Error", message: String(data.error ?? status), traceback: "", retryable: status === "retrying" };
    if (status === "completed") events.push(["SubStepCompleted", { ...of, attempt, seconds, result: data.result ?? null }]);
    if (status === "failed" || status === "retrying") events.push(["SubStepFailed", { ...of, attempt, seconds, error }]);
    if (status === "retrying") {
      const retry_at = data.retry_at ?? new Date().toISOString().replace("Z", "000Z");
      events.push(["SubStepRetryScheduled", { ...of, attempt: attempt + 1, retry_at }]);
    }
    if (status === "skipped") events.push(["SubStepSkipped", { ...of, cause: "condition", reason: data.reason ?? "skipped" }]);
    place.status = status;
    return events;
  }

  #ofPhase(name, status) {
    if (this.#phases.get(name) === status) return [];
    this.#phases.set(name, status);
    const failed = [...this.#places].filter(([, each]) => each.phase === name && each.status === "failed");
    if (status === "in_progress") return [["PhaseStarted", { phase: name }]];
    if (status === "completed") return [["PhaseCompleted", { phase: name }]];
    return [["PhaseFailed", { phase: name, failed: failed.map(([sub]) => `${name}/${sub}`) }]];
  }

  #append(changes) {
    if (!changes.length) return this.#turn;
    const events = changes.map(([type, data]) => ({ event_id: randomUUID(), type, data }));
    const sent = this.#turn.then(async () => {
      for (;;) {
        const answer = await this.#post(`/jobs/${this.jobId}/events`, {
          claim: this.#claim, expected: this.#version, events,
        });
        const behind = answer.type !== undefined; // somebody else has appended: a signal, a request to pause
        this.#version = answer.version;
        if (!behind) return answer;
      }
    });
    this.#turn = sent.catch(() => {});
    return sent;
  }
}
