// The service, seen from the page: JSON, pictures, uploads and the event stream, each with the access token.
//
// The token arrives in the fragment of the address ("#token=..."), which no browser sends to a server. It is moved to
// sessionStorage and removed from the address bar before anything else runs.

import { text } from "./texts.js";

const TOKEN_KEY = "capsule-edge.token";

/** Urgency of a picture (RFC 9218): the one on the screen, the small one at the pointer, those that may come next. */
export const URGENCY = Object.freeze({ screen: 1, pointer: 4, ahead: 6 });

// The service cannot answer now (503): it is asked again after these waits, or after those that it names in Retry-After.
const AGAIN_MS = [500, 1000, 2000, 4000];
const LONGEST_WAIT_MS = 10_000;

/**
 * An answer that is no success, or no answer at all (status 0). `message` is one line for the user, and `retryAfterMs` the
 * wait that the service asks for, null where it names none.
 */
export class ApiError extends Error {
  constructor({ status, code, message, hint = "", body = null, retryAfterMs = null }) {
    super(message);
    this.name = "ApiError";
    Object.assign(this, { status, code, hint, body, retryAfterMs });
  }
}

/**
 * Return what `ask()` resolves to. While the service cannot answer now, ask again after a wait, a few times in all and
 * only while `isWanted()`; then raise the last error. Only for requests that change nothing.
 */
export async function askPatiently(ask, isWanted = () => true) {
  for (const wait of AGAIN_MS) {
    try {
      return await ask();
    } catch (error) {
      if (error.status !== 503 || !isWanted()) throw error;
      const ms = Math.min(error.retryAfterMs ?? wait, LONGEST_WAIT_MS);
      await new Promise((done) => setTimeout(done, ms));
      if (!isWanted()) throw error;
    }
  }
  return ask();
}

/** Return the wait that a header Retry-After names: seconds or a date (RFC 9110, 10.2.3); null without one. */
function retryAfterMs(headers) {
  const value = headers.get("Retry-After");
  if (!value) return null;
  const ms = /^\d+$/.test(value) ? 1000 * Number(value) : Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? null : Math.max(0, ms);
}

/**
 * Move the token from the address bar to sessionStorage. Return it, or null where there is none.
 * "#token=TOKEN&study=ID" of other software goes on to that study.
 */
export function takeToken() {
  const match = /^#token=([^&]+)(?:&study=([0-9a-f]{32})$)?/.exec(location.hash);
  if (match) {
    sessionStorage.setItem(TOKEN_KEY, decodeURIComponent(match[1]));
    history.replaceState(null, "", location.pathname + (match[2] ? `#/study/${match[2]}` : ""));
  }
  return sessionStorage.getItem(TOKEN_KEY);
}

async function failureOf(response) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    // An answer without JSON is described by its status alone.
  }
  const error = body?.error ?? {};
  return new ApiError({
    status: response.status,
    code: error.code ?? `http_${response.status}`,
    message: error.message ?? text("error.status", { status: response.status }),
    hint: error.hint ?? "",
    body,
    retryAfterMs: retryAfterMs(response.headers),
  });
}

const addressOf = (path) => `/v1/${path.replace(/^\/?(v1\/)?/, "")}`;

/** Return the client of the service. `onExpired()` is called when the token is refused. */
export function createApi({ onExpired = () => {} } = {}) {
  const headers = (more = {}) => ({ Authorization: `Bearer ${sessionStorage.getItem(TOKEN_KEY) ?? ""}`, ...more });

  function expire() {
    sessionStorage.removeItem(TOKEN_KEY);
    onExpired();
  }

  /**
   * Return the `Response` of a request, or raise an ApiError. An aborted request raises AbortError.
   * `urgency` is one of URGENCY; the service does the most urgent work first.
   */
  async function answer(path, { method = "GET", body, signal, keepalive = false, urgency = null } = {}) {
    let response;
    const json = body !== undefined && body !== null && !(body instanceof Blob);
    try {
      response = await fetch(addressOf(path), {
        method, signal, keepalive, cache: "no-store", credentials: "omit", redirect: "error",
        headers: headers({ ...(json && { "Content-Type": "application/json" }), ...(urgency !== null && { Priority: `u=${urgency}` }) }),
        body: json ? JSON.stringify(body) : body,
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError({ status: 0, code: "unreachable", message: text("error.unreachable"), hint: text("error.unreachable_hint") });
    }
    if (response.ok) return response;
    const failure = await failureOf(response);
    if (failure.status === 401) expire();
    throw failure;
  }

  async function send(method, path, body, options = {}) {
    const response = await answer(path, { method, body, ...options });
    return response.status === 204 ? null : response.json();
  }

  /** Send `file` as the body of a POST. `onProgress(share)` gets 0..1. The promise has the method `cancel()`. */
  function upload(path, file, onProgress = () => {}) {
    const request = new XMLHttpRequest();
    const done = new Promise((resolve, reject) => {
      request.open("POST", addressOf(path));
      for (const [name, value] of Object.entries(headers({ "Content-Type": "application/octet-stream" }))) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
      request.onabort = () => reject(new DOMException("", "AbortError"));
      request.onerror = () => reject(new ApiError({ status: 0, code: "unreachable", message: text("error.unreachable"), hint: text("error.unreachable_hint") }));
      request.onload = async () => {
        const response = new Response(request.status === 204 ? null : request.responseText, { status: request.status });
        if (response.ok) return resolve(request.status === 204 ? null : await response.json());
        const failure = await failureOf(response);
        if (failure.status === 401) expire();
        return reject(failure);
      };
      request.send(file);
    });
    done.cancel = () => request.abort();
    return done;
  }

  return {
    answer,
    get: (path, options) => answer(path, options).then((response) => response.json()),
    send,
    blob: (path, options) => answer(path, options).then((response) => response.blob()),
    upload,
    events: (onEvent, onState) => followEvents(answer, onEvent, onState),
  };
}

/** Yield the events of one server-sent event stream: {event, data}. */
async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").map((line) => /^(\w+): ?(.*)$/.exec(line)).filter(Boolean);
      const data = lines.filter(([, field]) => field === "data").map(([, , value]) => value).join("\n");
      const event = lines.find(([, field]) => field === "event")?.[2] ?? "message";
      if (data) yield { event, data: JSON.parse(data) };
    }
  }
}

/**
 * Follow `GET events` and connect again when the stream ends; the wait doubles from 0.5 to 8 seconds.
 * `onEvent({event, data})` gets every event and `onState(connected)` every change. Return the stopping function.
 */
function followEvents(answer, onEvent, onState = () => {}) {
  const stop = new AbortController();
  const pause = (ms) => new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    stop.signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
  (async () => {
    for (let wait = 500; !stop.signal.aborted; wait = Math.min(8000, 2 * wait)) {
      try {
        const response = await answer("events", { signal: stop.signal });
        onState(true);
        for await (const event of readEvents(response)) {
          wait = 250;
          onEvent(event);
        }
      } catch (error) {
        if (stop.signal.aborted || error.status === 401) return;
      }
      onState(false);
      await pause(wait);
    }
  })();
  return () => stop.abort();
}
