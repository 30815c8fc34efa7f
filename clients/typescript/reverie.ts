// Generated from libs/protocol by `make generate`; do not edit.
// Types of everything on Reverie's WebSocket (`/v1/ws`), in its own HTTP bodies and on its NATS subjects.

/** Every error code: its HTTP status, and whether the same request may succeed later. */
export const ERROR_CODES = {
  invalid_json: { status: 400, retryable: false },
  invalid_message: { status: 422, retryable: false },
  unknown_type: { status: 422, retryable: false },
  invalid_field: { status: 422, retryable: false },
  unsupported_frame: { status: 400, retryable: false },
  payload_too_large: { status: 413, retryable: false },
  unsupported_media_type: { status: 415, retryable: false },
  invalid_upload: { status: 400, retryable: false },
  request_timeout: { status: 408, retryable: true },
  invalid_modes: { status: 400, retryable: false },
  not_found: { status: 404, retryable: false },
  method_not_allowed: { status: 405, retryable: false },
  job_not_found: { status: 404, retryable: false },
  mode_not_found: { status: 404, retryable: false },
  style_not_found: { status: 404, retryable: false },
  file_not_found: { status: 404, retryable: false },
  unauthenticated: { status: 401, retryable: false },
  forbidden: { status: 403, retryable: false },
  idempotency_conflict: { status: 409, retryable: false },
  job_finished: { status: 409, retryable: false },
  job_not_retryable: { status: 409, retryable: false },
  range_not_satisfiable: { status: 416, retryable: false },
  already_dreaming: { status: 400, retryable: false },
  session_not_found: { status: 404, retryable: false },
  session_over: { status: 409, retryable: false },
  not_implemented: { status: 501, retryable: false },
  queue_full: { status: 429, retryable: true },
  rate_limited: { status: 429, retryable: true },
  no_worker: { status: 503, retryable: true },
  superres_disabled: { status: 503, retryable: false },
  draining: { status: 503, retryable: true },
  service_unavailable: { status: 503, retryable: true },
  storage_unavailable: { status: 503, retryable: true },
  wait_timeout: { status: 504, retryable: true },
  internal: { status: 500, retryable: true },
  cancelled: { status: 409, retryable: false },
  out_of_memory: { status: 500, retryable: true },
  model_load_failed: { status: 503, retryable: false },
  unsafe_checkpoint: { status: 500, retryable: false },
  unsupported_model: { status: 500, retryable: false },
  inference_failed: { status: 500, retryable: false },
  invalid_output: { status: 500, retryable: false },
  crash_loop: { status: 500, retryable: false },
  deadline_exceeded: { status: 504, retryable: false },
  workflow_failed: { status: 500, retryable: false },
  workflow_not_found: { status: 400, retryable: false },
  workflow_invalid: { status: 422, retryable: false },
  comfy_unreachable: { status: 502, retryable: true },
} as const;
export type ErrorCode = keyof typeof ERROR_CODES;

/** WebSocket close codes of ours, and whether to come back. */
export const CLOSE_CODES = {
  1001: { reason: "server is draining", reconnect: true },
  1009: { reason: "message too large", reconnect: false },
  4008: { reason: "client reads too slowly", reconnect: true },
  4401: { reason: "not authenticated", reconnect: false },
  4503: { reason: "server is overloaded", reconnect: true },
} as const;

/** Kinds of wrong fields. */
export type FieldErrorType = "missing" | "type_error" | "out_of_range" | "pattern" | "choice" | "too_long" | "too_short" | "too_deep" | "invalid_text" | "unknown_field" | "conflict";

/** Row 25: keep-alive, every 30 seconds; answered by `pong` with the same `id`. */
export interface Ping {
  type: "ping";
  /** at most 200 characters */
  id?: string | number | null;
}

/** Connection: proves who this client is where no header could; answered by `AUTHENTICATED`. */
export interface Authenticate {
  type: "AUTHENTICATE";
  /** at most 200 characters */
  id?: string | number | null;
  /** a JWT; at most 8192 characters */
  sessionToken: string;
  /** at most 200 characters */
  agentId?: string | null;
}

/**
 * Connection: what this socket wants; answered by `hello:ok`, with a `cursor` by `resumed` too.
 *
 * `previews` sends binary preview frames of all its owner's jobs.
 */
export interface Hello {
  type: "hello";
  /** at most 200 characters */
  id?: string | number | null;
  /** default false */
  previews?: boolean;
  /** `seq` of the last event that was seen; 0.. */
  cursor?: number | null;
  /** identity of the event log; a cursor of another epoch cannot be resumed; at most 100 characters */
  epoch?: string | null;
}

/** Connection: send the job events after `cursor`; answered by `resumed`, then the events. */
export interface Resume {
  type: "resume";
  /** at most 200 characters */
  id?: string | number | null;
  /** `seq` of the last event that was seen; 0.. */
  cursor: number;
  /** identity of the event log; a cursor of another epoch cannot be resumed; at most 100 characters */
  epoch?: string | null;
}

/** A style by name and how strongly it is applied; level 0 is off. */
export interface StyleLora {
  style?: string | null;
  /** strength; 0 is off; 0..8; default 0 */
  level?: number;
}

/** A move of the starting noise towards that of another seed: 0 stays, 1 arrives. */
export interface Variation {
  /** seed of the noise; 0..4294967295 */
  seed: number;
  /** how far towards that seed's noise; 0..1 */
  weight: number;
}

/**
 * A picture from text.  A field left at None takes the default of the mode that runs the job.
 *
 * `variations` move the starting noise of `seed` by spherical interpolation, one after the other.
 *
 * With `initImage` it starts from that picture, drawn at `size` or else at the picture's own size; with
 * `maskImage` beside it only what is white there is drawn anew.  `strength` is the part of the steps that is
 * really taken, 0.8 unless it is given, with a mask 1.
 */
export interface GenerateParams {
  kind: "generate";
  /** text, in characters; at most 10000 characters */
  prompt: string;
  /** text, in characters; at most 10000 characters */
  negative_prompt?: string | null;
  /** at most 200 characters */
  mode?: string | null;
  /** WIDTHxHEIGHT in pixels; each side 64..4096 and a multiple of 8; at most 9 characters */
  size?: string | null;
  /** denoising steps; 1..150 */
  num_inference_steps?: number | null;
  /** guidance scale; 1 is none; 0..20 */
  guidance_scale?: number | null;
  /** seed of the noise; 0..4294967295 */
  seed?: number | null;
  style_lora?: StyleLora;
  /** at most 100 characters */
  scheduler?: string | null;
  /** default false */
  superres?: boolean;
  /** default "png" */
  superres_format?: "jpeg" | "png";
  /** JPEG quality; 1..100; default 92 */
  superres_quality?: number;
  /** super-resolution passes; 1..3; default 2 */
  superres_magnitude?: number;
  initImage?: string | null;
  maskImage?: string | null;
  /** how far from `initImage` the picture may go; 1 is all the way; ..1 */
  strength?: number | null;
  variations?: readonly Variation[];
}

/** Super-resolution of an uploaded picture. */
export interface SuperResolutionParams {
  kind: "sr";
  /** the reference that an upload returned, or the key of a stored picture, with or without `fileRef:` before it */
  fileRef: string;
  /** super-resolution passes; 1..3; default 2 */
  magnitude?: number;
  /** default "png" */
  out_format?: "jpeg" | "png";
  /** JPEG quality; 1..100; default 92 */
  quality?: number;
}

/**
 * A ComfyUI workflow: one of the named ones with its parameters, or (by right) a graph in API format.
 *
 * `inputImage` is what the workflow's first image input takes; others stand in `params` as `fileRef:...`.
 * `preview` chooses how ComfyUI makes previews, where its version can; left out, the bridge's setting decides.
 */
export interface ComfyParams {
  kind: "comfy";
  /** at most 200 characters */
  workflowId?: string | null;
  workflow?: { [key: string]: unknown } | null;
  params?: { [key: string]: unknown };
  /** the reference that an upload returned, or the key of a stored picture, with or without `fileRef:` before it */
  inputImage?: string | null;
  preview?: "auto" | "latent2rgb" | "none" | "taesd" | null;
}

/** Priority lanes; a lower number goes first. */
export type Lane = 0 | 1 | 2 | 3;
export type LaneName = "urgent" | "normal" | "batch" | "background";

/** What every `job:submit` may hold beside its job's parameters. */
export interface JobSubmitEnvelope {
  type: "job:submit";
  /** at most 200 characters */
  id?: string | number | null;
  /** lane by number (0..3) or name (urgent, normal, batch, background); default 1 */
  priority?: Lane | LaneName;
  /** seconds since the epoch, UTC */
  notBefore?: number | null;
  /** seconds since the epoch, UTC */
  startBy?: number | null;
  /** seconds since the epoch, UTC */
  finishBy?: number | null;
  /** at most 200 characters */
  idempotencyKey?: string | null;
  /** default false */
  previews?: boolean;
}
/**
 * Rows 1, 2 and 4: a job, answered by `job:ack` once its record is durable.
 *
 * `jobType` says which parameters apply.  They stand flat beside it or under `params`; parsing merges the two.
 * `notBefore` keeps the job waiting until then; not begun by `startBy` or not done by `finishBy`, it fails.
 */
export type JobSubmit =
  | (JobSubmitEnvelope & { jobType: "generate" } & Omit<GenerateParams, "kind">)
  | (JobSubmitEnvelope & { jobType: "generate" } & { params: Omit<GenerateParams, "kind"> })
  | (JobSubmitEnvelope & { jobType: "sr" } & Omit<SuperResolutionParams, "kind">)
  | (JobSubmitEnvelope & { jobType: "sr" } & { params: Omit<SuperResolutionParams, "kind"> })
  | (JobSubmitEnvelope & { jobType: "comfy" } & Omit<ComfyParams, "kind"> & ({ workflowId: string; workflow?: null } | { workflow: object; workflowId?: null }));

/** Row 6: stop a job, at once if it waits, at its next denoising step if it runs.  Idempotent. */
export interface JobCancel {
  type: "job:cancel";
  /** at most 200 characters */
  id?: string | number | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  jobId: string;
}

/** Beyond the map: start or stop binary preview frames of one job on this socket. */
export interface JobPreview {
  type: "job:preview";
  /** at most 200 characters */
  id?: string | number | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  jobId: string;
  /** default true */
  enabled?: boolean;
}

/**
 * Row 31: move a job to another lane, and a waiting one to another place within it.
 *
 * The place is one of `position` (an index), `place`, `before` or `after` (another waiting job of that lane).
 */
export interface JobPriority {
  type: "job:priority";
  /** at most 200 characters */
  id?: string | number | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  jobId: string;
  /** lane by number (0..3) or name (urgent, normal, batch, background) */
  priority: Lane | LaneName;
  /** place within its lane; 0 is next; 0.. */
  position?: number | null;
  place?: "back" | "front" | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  before?: string | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  after?: string | null;
}

/** Row 22: keep a small text for 300 seconds; answered by `storage:put:ok`. */
export interface StoragePut {
  type: "storage:put";
  /** at most 200 characters */
  id?: string | number | null;
  /** 1 to 200 letters, digits, `:`, `.`, `_` or `-`, starting with a letter or digit */
  key: string;
  /** at most 65536 characters */
  payload: string;
}

/**
 * Row 7: begin a dream session; answered by `dream:started`.
 *
 * `duration` is in seconds, `duration_hours` in hours: at most one of them, an hour without.  The other parameters
 * keep the names of `POST /dreams/start`.
 */
export interface DreamStart {
  type: "dream:start";
  /** at most 200 characters */
  id?: string | number | null;
  /** text, in characters; at most 10000 characters */
  prompt: string;
  /** seconds; 3.6..86400 */
  duration?: number | null;
  /** hours; 0.001..24 */
  duration_hours?: number | null;
  /** 0 stays close, 1 wanders far; 0..1; default 0.5 */
  temperature?: number;
  /** least score that is kept; 0..1; default 0.7 */
  similarity_threshold?: number;
  /** candidates between two full renders; 1..; default 100 */
  render_interval?: number;
  /** candidates kept; 10..1000; default 100 */
  top_k?: number;
  /** random, linear_walk, grid, evolutionary, temperature, cluster, slerp, or a plugged-in one; default "random" */
  strategy?: string;
  /** at most 200 characters */
  mode?: string | null;
  /** WIDTHxHEIGHT in pixels; each side 64..4096 and a multiple of 8; at most 9 characters */
  size?: string | null;
  /** text, in characters; at most 10000 characters */
  negative_prompt?: string | null;
  /** guidance scale; 1 is none; 0..20 */
  guidance_scale?: number | null;
  /** denoising steps; 1..150 */
  num_inference_steps?: number | null;
  /** how much each scorer counts, by name */
  weights?: { [key: string]: number } | null;
  /** seed of the noise; 0..4294967295 */
  seed?: number | null;
}

/** Row 8: end the session, or the only one there is; answered by `dream:stopped`. */
export interface DreamStop {
  type: "dream:stop";
  /** at most 200 characters */
  id?: string | number | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId?: string | null;
}

/**
 * Row 10: the best candidates so far; answered by `dream:top:result`.
 *
 * Filters go before the offset and the limit.
 */
export interface DreamTop {
  type: "dream:top";
  /** at most 200 characters */
  id?: string | number | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId?: string | null;
  /** candidates; 1..1000; default 50 */
  limit?: number;
  /** candidates left out before; 0..1000000; default 0 */
  offset?: number;
  /** least score that is kept; 0..1; default 0.0 */
  min_score?: number;
  /** default false */
  rendered_only?: boolean;
}

/** Row 11: the latest candidates; answered by `dream:recent:result`. */
export interface DreamRecent {
  type: "dream:recent";
  /** at most 200 characters */
  id?: string | number | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId?: string | null;
  /** candidates; 1..1000; default 20 */
  limit?: number;
  /** candidates left out before; 0..1000000; default 0 */
  offset?: number;
  /** least score that is kept; 0..1; default 0.0 */
  min_score?: number;
  /** default false */
  rendered_only?: boolean;
}

/**
 * What may be steered while a session dreams; a field left at None stays as it is.
 *
 * `weights` replaces the weights of the scorers.  `more_like` and `less_like` name candidates whose likeness is
 * wanted or not, in addition to those named before; `forget_likes` drops these first.
 */
export interface DreamGuidance {
  /** text, in characters; at most 10000 characters */
  prompt?: string | null;
  /** text, in characters; at most 10000 characters */
  negative_prompt?: string | null;
  /** 0 stays close, 1 wanders far; 0..1 */
  temperature?: number | null;
  /** least score that is kept; 0..1 */
  similarity_threshold?: number | null;
  /** candidates between two full renders; 1.. */
  render_interval?: number | null;
  /** random, linear_walk, grid, evolutionary, temperature, cluster, slerp, or a plugged-in one */
  strategy?: string | null;
  /** guidance scale; 1 is none; 0..20 */
  guidance_scale?: number | null;
  /** denoising steps; 1..150 */
  num_inference_steps?: number | null;
  /** how much each scorer counts, by name */
  weights?: { [key: string]: number } | null;
  more_like?: readonly number[] | null;
  less_like?: readonly number[] | null;
  forget_likes?: boolean | null;
}

/** Row 13: steer a running session; what is left out stays as it is.  Answered by `dream:guide:ok`. */
export interface DreamGuide {
  type: "dream:guide";
  /** at most 200 characters */
  id?: string | number | null;
  params: DreamGuidance;
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId?: string | null;
}

/** Row 25: answer to `ping`, echoing its `id`. */
export interface Pong {
  type: "pong";
  id?: string | number | null;
}

/** One wrong field: where it is (`loc`), what is wrong and what is allowed (`msg`), and a stable `type`. */
export interface FieldError {
  loc: readonly (string | number)[];
  msg: string;
  /** kind of error */
  type: FieldErrorType | (string & {});
}

/** What is wrong with one node of a workflow; `type` in ComfyUI's words, `field` the input that is meant. */
export interface ComfyNodeError {
  node: string;
  type: string;
  message: string;
  classType?: string;
  title?: string;
  field?: string;
  details?: string;
}

/**
 * Connection: a client frame was refused.  `id` echoes the client's; the socket stays open.
 *
 * `code` is one of the error codes; with `invalid_field` each wrong field stands in `fields`, with
 * `workflow_invalid` each wrong node of a workflow in `nodeErrors` too.
 */
export interface Error {
  type: "error";
  id?: string | number | null;
  /** an error code */
  code: ErrorCode | (string & {});
  message: string;
  retryable: boolean;
  fields?: readonly FieldError[];
  nodeErrors?: readonly ComfyNodeError[];
}

/** Connection: answer to `AUTHENTICATE`; whose jobs this socket now sees, and until when. */
export interface Authenticated {
  type: "AUTHENTICATED";
  id?: string | number | null;
  user: string;
  /** default false */
  admin?: boolean;
  /** seconds since the epoch, UTC */
  expiresAt?: number | null;
}

/** Connection: answer to `hello`, after what a `cursor` asked for; `seq` and `epoch` are a cursor. */
export interface HelloOk {
  type: "hello:ok";
  id?: string | number | null;
  previews: boolean;
  /** position in the event log of all jobs; the highest of job:state, job:complete and job:error that was seen is the cursor to resume from; 0.. */
  seq: number;
  /** identity of the event log; a cursor of another epoch cannot be resumed; at most 100 characters */
  epoch?: string;
}

/**
 * Connection: answer to `resume`, before the missed events.
 *
 * `recovered` says that every state transition after `from` follows; otherwise the log no longer reaches back
 * that far and the client starts from the current state, which follows instead.
 */
export interface Resumed {
  type: "resumed";
  id?: string | number | null;
  recovered: boolean;
  /** position in the event log of all jobs; the highest of job:state, job:complete and job:error that was seen is the cursor to resume from; 0.. */
  from: number;
  /** position in the event log of all jobs; the highest of job:state, job:complete and job:error that was seen is the cursor to resume from; 0.. */
  seq: number;
  /** identity of the event log; a cursor of another epoch cannot be resumed; at most 100 characters */
  epoch?: string;
}

/** Where a job is in its life.  The last three are final. */
export type JobState = "queued" | "running" | "completed" | "failed" | "cancelled";

/** Rows 1, 2 and 4: the job's record is durable.  `existing` marks the answer to a repeated submit. */
export interface JobAck {
  type: "job:ack";
  id?: string | number | null;
  jobId: string;
  state: JobState;
  priority: Lane;
  /** position in the event log of all jobs; the highest of job:state, job:complete and job:error that was seen is the cursor to resume from; 0.. */
  seq: number;
  /** default false */
  existing?: boolean;
}

/** What kind of work a job is; decides which service claims it. */
export type JobType = "generate" | "sr" | "comfy" | "switch";

/**
 * Rows 1 and 5: a job entered `queued` or `running`, or was asked to stop.
 *
 * Terminal states have messages of their own: `job:complete` and `job:error`.
 */
export interface JobStateChanged {
  type: "job:state";
  jobId: string;
  jobType: JobType;
  state: JobState;
  priority: Lane;
  /** counts the claims of the job, from 1; 0.. */
  attempt: number;
  /** default false */
  cancelling?: boolean;
  worker?: string | null;
  /** position in the event log of all jobs; the highest of job:state, job:complete and job:error that was seen is the cursor to resume from; 0.. */
  seq: number;
  /** position among the events of this job; 0.. */
  jobSeq: number;
}

/** What a running job is doing. */
export type Phase = "loading" | "encoding" | "denoising" | "decoding" | "upscaling" | "waiting" | "executing" | "storing";

/** Where a node of a workflow is. */
export type ComfyNodeState = "running" | "cached" | "finished" | "failed";

/**
 * One node of a workflow that was seen: its id, title and class, and how far it is.
 *
 * What node expansion makes is folded into the node that a person sees.
 */
export interface ComfyNode {
  id: string;
  title?: string;
  classType?: string;
  /** default "running" */
  state?: ComfyNodeState;
  /** fraction from 0 to 1; 0..1; default 0.0 */
  progress?: number;
  /** seconds; 0..; default 0.0 */
  seconds?: number;
}

/**
 * A job inside ComfyUI: on which instance, under which ids, and its nodes in the order they were seen.
 *
 * `current` are the ids of the nodes that run now, the latest first.
 */
export interface ComfyRun {
  instance: string;
  promptId?: string;
  clientId?: string;
  /** a count; 0..; default 0 */
  nodesTotal?: number;
  /** a count; 0..; default 0 */
  nodesSeen?: number;
  current?: readonly string[];
  nodes?: readonly ComfyNode[];
}

/**
 * Rows 1, 2 and 5: latest progress; `progress` is the whole job's fraction 0..1.
 *
 * `node` names the ComfyUI node that runs, `comfy` tells of all its nodes.  An `etaSeconds` that would be a guess
 * is left out.
 */
export interface JobProgress {
  type: "job:progress";
  jobId: string;
  /** counts the claims of the job, from 1; 0.. */
  attempt: number;
  phase: Phase;
  /** denoising steps done; 0.. */
  step: number;
  /** denoising steps in all; 0.. */
  steps: number;
  /** fraction from 0 to 1; 0..1 */
  progress: number;
  /** seconds; 0.. */
  etaSeconds?: number | null;
  node?: string;
  comfy?: ComfyRun | null;
  /** position in the event log of all jobs; the highest of job:state, job:complete and job:error that was seen is the cursor to resume from; 0.. */
  seq: number;
}

/**
 * One stored result.  `url` is relative to the gateway; `partial` marks what an unfinished job left.
 *
 * Of a ComfyUI job also where it comes from: the node, the kind it names it (`images`, `gifs`, `audio`, `text`),
 * and the file's name, folder and type there.
 */
export interface Output {
  url: string;
  key: string;
  /** default "image/png" */
  contentType?: string;
  /** pixels; 0..; default 0 */
  width?: number;
  /** pixels; 0..; default 0 */
  height?: number;
  /** bytes; 0..; default 0 */
  bytes?: number;
  /** default false */
  partial?: boolean;
  node?: string;
  kind?: string;
  filename?: string;
  subfolder?: string;
  folderType?: string;
}

/** What a finished job was really made with (`seed`, `backend`, `sr` are always there). */
export interface JobMeta {
  /** seed of the noise, given or drawn */
  seed: number;
  backend: string;
  sr: boolean;
  mode?: string;
  model?: string;
  scheduler?: string;
  /** denoising steps in all; 0..; default 0 */
  steps?: number;
  /** guidance scale; default 0.0 */
  guidance?: number;
  size?: string;
  nativeSize?: string;
  /** share of the steps taken from `initImage`; 0 without; default 0.0 */
  strength?: number;
  srModel?: string;
  /** a count; 0..; default 0 */
  srPasses?: number;
  /** a count; 0..; default 0 */
  srScalePerPass?: number;
  srFormat?: string;
  /** seconds; 0..; default 0.0 */
  runSeconds?: number;
  workflow?: string;
  comfy?: ComfyRun | null;
}

/** Rows 1, 2 and 5: the job's outputs are stored and its record is final. */
export interface JobComplete {
  type: "job:complete";
  jobId: string;
  outputs: readonly Output[];
  meta: JobMeta | null;
  /** position in the event log of all jobs; the highest of job:state, job:complete and job:error that was seen is the cursor to resume from; 0.. */
  seq: number;
  /** position among the events of this job; 0.. */
  jobSeq: number;
}

/** Why a job did not complete; `code` is an ErrorCode, `message` one sentence for a person. */
export interface JobError {
  /** an error code */
  code: ErrorCode | (string & {});
  message: string;
  /** default false */
  retryable: boolean;
  nodeErrors: readonly ComfyNodeError[];
}

/** Row 5: the job ended without completing; `state` is `failed`, or `cancelled` with code `cancelled`. */
export interface JobFailed {
  type: "job:error";
  jobId: string;
  state: JobState;
  /** an error code */
  code: ErrorCode | (string & {});
  message: string;
  retryable: boolean;
  outputs?: readonly Output[];
  /** default false */
  partial?: boolean;
  error?: JobError | null;
  /** position in the event log of all jobs; the highest of job:state, job:complete and job:error that was seen is the cursor to resume from; 0.. */
  seq: number;
  /** position among the events of this job; 0.. */
  jobSeq: number;
}

/** Row 6: `job:cancel` is durable: a queued job is cancelled, a running one stops at its next step. */
export interface JobCancelOk {
  type: "job:cancel:ok";
  id?: string | number | null;
  jobId: string;
  state: JobState;
}

/** Row 31: the job's new lane is durable; `position` is its place in the queue, 0 is next. */
export interface JobPriorityOk {
  type: "job:priority:ok";
  id?: string | number | null;
  jobId: string;
  priority: Lane;
  /** a count; 0.. */
  position?: number | null;
}

/** Beyond the map: whether this socket now gets the job's binary preview frames. */
export interface JobPreviewOk {
  type: "job:preview:ok";
  id?: string | number | null;
  jobId: string;
  enabled: boolean;
}

/** Row 7: the session's record is durable and it begins. */
export interface DreamStarted {
  type: "dream:started";
  id?: string | number | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId: string;
}

/**
 * How a session does, in the names of `GET /dreams/status` and `/dreams/stats`.
 *
 * `dream_count` are the drafts that were begun; of these some were `pruned` half-way, `dropped` (they did not fit
 * a guide any more, or failed), or `merged` with a near duplicate; `candidates` are kept now, `rendered` in full.
 */
export interface DreamStats {
  /** default false */
  is_dreaming: boolean;
  /** a count; 0..; default 0 */
  dream_count: number;
  /** candidates per second; default 0.0 */
  dreams_per_second: number;
  /** candidates per hour; default 0.0 */
  dreams_per_hour: number;
  /** a count; 0..; default 0 */
  candidates: number;
  /** a count; 0..; default 0 */
  top_k: number;
  /** seconds; 0..; default 0.0 */
  elapsed_seconds: number;
  /** a count; 0..; default 0 */
  scored: number;
  /** a count; 0..; default 0 */
  pruned: number;
  /** a count; 0..; default 0 */
  dropped: number;
  /** a count; 0..; default 0 */
  merged: number;
  /** a count; 0..; default 0 */
  rendered: number;
  /** a count; 0..; default 0 */
  in_flight: number;
  /** fraction from 0 to 1; 0..1; default 0.0 */
  best_score: number;
}

/** Row 8: no more candidates are made; `stats` is the session's total. */
export interface DreamStopped {
  type: "dream:stopped";
  id?: string | number | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId: string | null;
  stats: DreamStats;
}

/**
 * Where a session is in its life; `finished` ran its whole duration, `stopped` was told to.
 *
 * `stopping` makes no more candidates and renders the rest of its best.
 */
export type DreamState = "dreaming" | "stopping" | "stopped" | "finished" | "failed";

/** Rows 9 and 12: how the session does, about every 2 seconds while it dreams and once when it ends. */
export interface DreamStatus {
  type: "dream:status";
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId: string;
  state: DreamState;
  stats: DreamStats;
}

/**
 * One find: the seed and parameters that made it, how it scored and where its picture lies.
 *
 * `parents` are the candidates it was made from and `mutation` says how; `scores` are those of each scorer,
 * calibrated.  `url` is the full picture once it is `rendered`, before that the draft.
 */
export interface DreamCandidate {
  /** seed of the noise; 0..4294967295 */
  seed: number;
  /** fraction from 0 to 1; 0..1 */
  score: number;
  prompt: string;
  /** seconds since the epoch, UTC; default 0.0 */
  timestamp: number;
  /** default false */
  rendered: boolean;
  url: string | null;
  thumbnailUrl: string | null;
  params: { [key: string]: unknown };
  /** a count; 0..; default 0 */
  id: number;
  scores: { [key: string]: number };
  parents: readonly number[];
  mutation: string;
  strategy: string;
  /** the score, moved by what it is to be like; default 0.0 */
  fitness: number;
}

/** Row 10: the best candidates, best first. */
export interface DreamTopResult {
  type: "dream:top:result";
  id?: string | number | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId: string | null;
  candidates: readonly DreamCandidate[];
  /** a count; 0..; default 0 */
  total?: number;
}

/** Row 11: the latest candidates, latest first. */
export interface DreamRecentResult {
  type: "dream:recent:result";
  id?: string | number | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId: string | null;
  candidates: readonly DreamCandidate[];
  /** a count; 0..; default 0 */
  total?: number;
}

/** Row 13: the steering that is in force from the next candidate on. */
export interface DreamGuideOk {
  type: "dream:guide:ok";
  id?: string | number | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId: string;
  params: DreamGuidance;
}

/** Row 14: a promising candidate, as it is found; `candidateId` is what `dream:guide` calls it. */
export interface DreamCandidateFound {
  type: "dream:candidate";
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId: string;
  /** a count; 0..; default 0 */
  candidateId?: number;
  /** seed of the noise; 0..4294967295 */
  seed: number;
  /** fraction from 0 to 1; 0..1 */
  score: number;
  thumbnailUrl?: string | null;
  url?: string | null;
  prompt?: string;
  /** seconds since the epoch, UTC; default 0.0 */
  timestamp?: number;
  /** default false */
  rendered?: boolean;
  scores?: { [key: string]: number };
  parents?: readonly number[];
  mutation?: string;
  strategy?: string;
  params?: { [key: string]: unknown };
}

/** Row 22: the text is stored under `key`; `url` is relative to the gateway. */
export interface StoragePutOk {
  type: "storage:put:ok";
  id?: string | number | null;
  key: string;
  url: string;
}

/** Accelerator memory as the HTTP API has it (GB); `device` is "No GPU" with zeros where there is none. */
export interface Vram {
  /** default "No GPU" */
  device: string;
  /** GB; 0..; default 0.0 */
  total_gb: number;
  /** GB; 0..; default 0.0 */
  allocated_gb: number;
  /** GB; 0..; default 0.0 */
  used_gb: number;
  /** GB; 0..; default 0.0 */
  available_gb: number;
  /** percent; 0..100; default 0.0 */
  usage_percent: number;
}

/** Whether outputs can be stored and read. */
export interface StorageHealth {
  ok: boolean;
  provider: string;
}

/** One waiting or running job; `jobId` is left out where it is somebody else's. */
export interface QueueRow {
  type: JobType;
  state: JobState;
  priority: Lane;
  /** a count; 0.. */
  position: number;
  /** seconds since the epoch, UTC */
  enqueuedAt: number;
  jobId?: string | null;
  /** seconds; 0.. */
  etaSeconds?: number | null;
}

/** Mirror of the queue: counts and rows, in the order they will be claimed. */
export interface QueueState {
  /** a count; 0.. */
  pending: number;
  /** a count; 0.. */
  running: number;
  /** a count; 0.. */
  depth: number;
  /** default false */
  paused: boolean;
  jobs: readonly QueueRow[];
}

/** `lost` is a GPU that was there before: off the bus, in need of a reset, or without its driver. */
export type GpuState = "ok" | "lost";

/** Why a GPU runs below the clock that it could have, for reasons that an operator can mend. */
export type ThrottleReason = "hw_slowdown" | "sw_thermal_slowdown" | "hw_thermal_slowdown" | "hw_power_brake_slowdown" | "sw_power_cap";

/** One part of a GPU that is divided (MIG). */
export interface MigInstance {
  /** a count; 0.. */
  index: number;
  uuid: string;
  /** GB; 0.. */
  totalGb?: number | null;
  /** GB; 0.. */
  usedGb?: number | null;
}

/** One compute process on a GPU; `pid` as the driver counts, which a container may not know. */
export interface GpuProcess {
  /** process id on the node; 0.. */
  pid: number;
  /** GB; 0.. */
  usedGb?: number | null;
}

/**
 * One GPU.  ECC errors are those since the driver was loaded; `slowdown_c` is where the GPU slows itself down.
 *
 * `mig` are the parts of a divided GPU; `processes` is absent where the driver does not tell them.
 */
export interface Gpu {
  /** a count; 0.. */
  index: number;
  uuid: string;
  name: string;
  /** default "ok" */
  state?: GpuState;
  detail?: string;
  /** GB; 0.. */
  totalGb?: number | null;
  /** GB; 0.. */
  usedGb?: number | null;
  /** percent; 0..100 */
  utilizationPercent?: number | null;
  /** degrees Celsius */
  temperatureC?: number | null;
  /** degrees Celsius */
  slowdownC?: number | null;
  /** watts; 0.. */
  powerW?: number | null;
  /** watts; 0.. */
  powerLimitW?: number | null;
  /** a count; 0.. */
  eccCorrected?: number | null;
  /** a count; 0.. */
  eccUncorrected?: number | null;
  throttled?: readonly ThrottleReason[];
  /** default false */
  migEnabled?: boolean;
  mig?: readonly MigInstance[];
  processes?: readonly GpuProcess[] | null;
}

/** The machine without its GPUs; the load is the average of one minute. */
export interface Host {
  /** a count; 0.. */
  cores: number;
  /** percent; 0..100 */
  cpuPercent: number;
  /** processes that want a core; 0.. */
  load: number;
  /** GB; 0.. */
  memoryTotalGb: number;
  /** GB; 0.. */
  memoryAvailableGb: number;
}

/** The file system that the stored pictures lie on. */
export interface Disk {
  path: string;
  /** GB; 0.. */
  totalGb: number;
  /** GB; 0.. */
  freeGb: number;
}

/** What a service's `/ready` answered the monitor; `reason` says why it is not ready. */
export interface ServiceHealth {
  name: string;
  ok: boolean;
  reason?: string;
}

/**
 * One node as its monitor sees it.
 *
 * `driver` is the version of the NVIDIA driver, empty without one; `driverError` why its GPUs cannot be read.
 * `host` and `disk` are null where they could not be measured.
 */
export interface NodeStatus {
  node: string;
  vram: Vram;
  driver: string;
  driverError: string;
  gpus: readonly Gpu[];
  host: Host | null;
  disk: Disk | null;
  services: readonly ServiceHealth[];
}

/**
 * Whether an instance can be given work.
 *
 * `disconnected` was not reached since it was entered, `reconnecting` was and is being sought; `unhealthy` answers
 * but does no work (its worker thread is dead, say); `disabled` is not to be used.
 */
export type ComfyStatus = "connected" | "disconnected" | "reconnecting" | "unhealthy" | "disabled";

/** How one ComfyUI instance does, in `system:status`; queue lengths count others' prompts too. */
export interface ComfyHealth {
  name: string;
  status: ComfyStatus;
  reason: string;
  version: string;
  /** default false */
  draining: boolean;
  /** a count; 0..; default 0 */
  queuePending: number;
  /** a count; 0..; default 0 */
  queueRunning: number;
}

/**
 * Rows 19, 24 and 32: state of the platform, on connect and on change.  `mode` is the mode that is loaded.
 *
 * `loading` are the modes whose models workers are loading, `loadProgress` how much of each is in place, on the
 * worker that has come least far.  `nodes` are the machines that a monitor runs on; a monitor's own message has
 * the one that is its own.  `comfy` are the ComfyUI instances.
 */
export interface SystemStatus {
  type: "system:status";
  mode: string | null;
  vram: Vram;
  storage: StorageHealth;
  queueState: QueueState;
  loading: readonly string[];
  loadProgress: { [key: string]: number };
  /** a count; 0..; default 0 */
  workers: number;
  version: string;
  nodes: readonly NodeStatus[];
  comfy: readonly ComfyHealth[];
}

/** What a worker says of itself. */
export type WorkerState = "starting" | "ready" | "draining" | "broken";

/** One worker that takes jobs now. */
export interface Backend {
  name: string;
  backend: string;
  device: string;
  state: WorkerState;
  jobTypes: readonly JobType[];
  modes: readonly string[];
  mode: string | null;
  /** a count; 0..; default 1 */
  slots: number;
  /** a count; 0..; default 0 */
  running: number;
  vram: Vram;
  node: string;
}

/** Row 33: the workers there are, on change. */
export interface SystemBackends {
  type: "system:backends";
  available: readonly Backend[];
}

/** Row 34: mirror of the queue, on change; `jobs` in the order they will be claimed. */
export interface QueueStateChanged {
  type: "queue:state";
  /** a count; 0.. */
  pending: number;
  /** a count; 0.. */
  running: number;
  /** a count; 0.. */
  depth: number;
  /** default false */
  paused: boolean;
  jobs: readonly QueueRow[];
}

/** Make a mode, loaded, that of jobs that name none; on one worker, by its name. */
export interface SwitchParams {
  kind: "switch";
  /** at most 200 characters */
  mode: string;
  worker: string;
}

/** When a job reached each point of its life; null where it has not. */
export interface JobTimestamps {
  /** seconds since the epoch, UTC */
  createdAt: number;
  /** seconds since the epoch, UTC */
  enqueuedAt: number;
  /** seconds since the epoch, UTC */
  startedAt: number | null;
  /** seconds since the epoch, UTC */
  finishedAt: number | null;
  /** seconds since the epoch, UTC */
  updatedAt: number;
}

/**
 * `GET /v1/jobs/{id}`: the same story as the WebSocket's events tell.
 *
 * `position` is the place in the queue (0 is next) and null once the job does not wait; `waitingFor` says in a
 * sentence what keeps a waiting job from starting, other than those before it; `progress` is the whole job's
 * fraction; `phase`, `step` and `steps` say where a running job is, `node` and `comfy` where in a workflow;
 * `retryOf` is the ended job that it does again.
 */
export interface JobView {
  jobId: string;
  type: JobType;
  state: JobState;
  priority: Lane;
  /** a count; 0.. */
  position: number | null;
  waitingFor: string | null;
  /** counts the claims of the job, from 1; 0.. */
  attempt: number;
  /** fraction from 0 to 1; 0..1; default 0.0 */
  progress: number;
  phase: Phase | null;
  /** denoising steps done; 0..; default 0 */
  step: number;
  /** denoising steps in all; 0..; default 0 */
  steps: number;
  node: string;
  comfy: ComfyRun | null;
  /** default false */
  cancelling: boolean;
  retryOf: string | null;
  outputs: readonly Output[];
  /** default false */
  partial: boolean;
  error: JobError | null;
  meta: JobMeta | null;
  params: GenerateParams | SuperResolutionParams | ComfyParams | SwitchParams;
  timestamps: JobTimestamps;
  /** position in the event log of all jobs; the highest of job:state, job:complete and job:error that was seen is the cursor to resume from; 0.. */
  seq: number;
}

/** 202 of `POST /v1/jobs`: the record is durable; `Location` and `url` lead to it. */
export interface JobAccepted {
  jobId: string;
  state: JobState;
  priority: Lane;
  /** position in the event log of all jobs; the highest of job:state, job:complete and job:error that was seen is the cursor to resume from; 0.. */
  seq: number;
  /** default false */
  existing: boolean;
  url: string;
}

/** `GET /v1/jobs`: latest first; `cursor` leads to the next page, null on the last one; `total` counts all. */
export interface JobPage {
  jobs: readonly JobView[];
  cursor: string | null;
  /** a count; 0.. */
  total: number;
}

/** Body of `PATCH /v1/jobs/{id}`: another lane, another place within it, or both; as in `job:priority`. */
export interface JobPatch {
  /** lane by number (0..3) or name (urgent, normal, batch, background) */
  priority?: Lane | LaneName | null;
  /** place within its lane; 0 is next; 0.. */
  position?: number | null;
  place?: "back" | "front" | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  before?: string | null;
  /** 1 to 64 letters, digits, `_` or `-` */
  after?: string | null;
}

/** `paused`: nothing is claimed, submits wait.  `draining`: nothing new is taken, what is there is finished. */
export interface Gate {
  /** default false */
  paused?: boolean;
  /** default false */
  draining?: boolean;
}

/** Key `queue` of the KV bucket `controls`; lanes by name, workers by name.  What is not listed is open. */
export interface QueueControl {
  queue: Gate;
  lanes: { [key: string]: Gate };
  workers: { [key: string]: Gate };
}

/** `GET /v1/queue`: what `queue:state` says, and the gates behind it. */
export interface QueueView {
  /** a count; 0.. */
  pending: number;
  /** a count; 0.. */
  running: number;
  /** a count; 0.. */
  depth: number;
  /** default false */
  paused: boolean;
  jobs: readonly QueueRow[];
  controls: QueueControl;
}

/** `POST /v1/upload`: what later messages call the picture, for 300 seconds. */
export interface UploadAccepted {
  /** reference of the upload */
  fileRef: string;
}

/** Body of `PUT /storage/{key}`. */
export interface TextToStore {
  /** at most 65536 characters */
  payload: string;
}

/** Answer of `PUT /storage/{key}`: the text is kept for 300 seconds. */
export interface TextStored {
  /** default true */
  ok: boolean;
  /** 1 to 200 letters, digits, `:`, `.`, `_` or `-`, starting with a letter or digit */
  key: string;
}

/** The error as clients of OpenAI's API look for it; `param` is the first wrong field. */
export interface OpenaiError {
  message: string;
  type: string;
  param: string | null;
  /** an error code */
  code: ErrorCode | (string & {});
}

/**
 * Body of every HTTP error.  `detail` is a sentence, or one entry per wrong field.
 *
 * `code` is stable; `requestId` finds the request in the logs; `jobId` and `url` are there where a job goes on
 * although this request ended (504), `jobIds` where the request made several.  `nodeErrors` are the wrong
 * nodes of a workflow.  `error` is there on the paths of OpenAI's API.
 */
export interface ErrorBody {
  detail: string | readonly FieldError[];
  /** an error code */
  code: ErrorCode | (string & {});
  requestId: string;
  jobId?: string | null;
  jobIds?: readonly string[];
  url?: string | null;
  nodeErrors?: readonly ComfyNodeError[];
  error?: OpenaiError | null;
}

/** `GET /api/models/status`. */
export interface ModelsStatus {
  /** the mode of jobs that name none */
  current_mode: string | null;
  /** jobs that wait; 0.. */
  queue_size: number;
  vram: Vram;
}

/** A LoRA that a mode always wears. */
export interface LoraView {
  path: string;
  /** weight; 1 is as it was trained */
  strength: number;
  adapter_name: string;
}

/** A mode with its defaults; `loaded` is whether a worker has it in memory now. */
export interface ModeView {
  model: string;
  loras: readonly LoraView[];
  /** WIDTHxHEIGHT in pixels; null if not known yet */
  default_size: string | null;
  /** denoising steps in all; 0.. */
  default_steps: number | null;
  /** guidance scale */
  default_guidance: number | null;
  scheduler: string;
  styles: readonly string[];
  /** default false */
  loaded: boolean;
  /** default true */
  available: boolean;
  /** why it cannot be used; empty if it can */
  detail: string;
}

/** `GET /api/modes`. */
export interface ModesView {
  default_mode: string | null;
  modes: { [key: string]: ModeView };
}

/** Body of `POST /api/modes/switch`. */
export interface ModeSwitch {
  /** at most 200 characters */
  mode: string;
}

/** `POST /api/modes/switch`: `queued` with the jobs that switch, one for each worker that has the mode. */
export interface ModeSwitched {
  status: "already_loaded" | "queued";
  mode: string;
  /** 1 to 64 letters, digits, `_` or `-` */
  job_id?: string | null;
  job_ids?: readonly string[];
}

/** `POST /api/modes/reload`. */
export interface ModesReread {
  status: "reloaded";
  /** a count; 0.. */
  modes_count: number;
  modes: readonly string[];
  default_mode: string | null;
}

/** A model in a worker's memory. */
export interface ModelView {
  name: string;
  /** as the operator wrote it */
  model_path: string;
  /** GB; 0.. */
  vram_gb: number;
  loras: readonly string[];
  worker: string;
}

/** `GET /api/vram`. */
export interface VramView {
  device: string;
  /** GB; 0.. */
  total_gb: number;
  /** GB; 0.. */
  allocated_gb: number;
  /** GB; 0.. */
  used_gb: number;
  /** GB; 0.. */
  available_gb: number;
  /** percent; 0..100 */
  usage_percent: number;
  /** a count; 0.. */
  models_loaded: number;
  models: readonly ModelView[];
}

/** Body of `POST /v1/comfy/jobs` as JSON: one of `workflowId` and `workflow`. */
export interface ComfyRequest {
  /** at most 200 characters */
  workflowId?: string | null;
  workflow?: { [key: string]: unknown } | null;
  params?: { [key: string]: unknown };
  /** the reference that an upload returned, or the key of a stored picture, with or without `fileRef:` before it */
  inputImage?: string | null;
  preview?: "auto" | "latent2rgb" | "none" | "taesd" | null;
  /** lane by number (0..3) or name (urgent, normal, batch, background); default 1 */
  priority?: Lane | LaneName;
}

/** Answer of `POST /v1/comfy/jobs`: one id in three spellings. */
export interface ComfyAccepted {
  job_id: string;
  jobId: string;
  id: string;
}

/** One stored output; `url` is relative to the gateway, the rest as ComfyUI named it. */
export interface ComfyOutput {
  id: string;
  url: string;
  filename: string;
  type: string;
  subfolder: string;
  node: string;
  kind: string;
  content_type: string;
  /** default false */
  partial: boolean;
}

/** Where a job is in ComfyUI; null before it got there. */
export interface ComfyWhere {
  client_id: string | null;
  prompt_id: string | null;
  instance: string | null;
}

/** One node that was seen, in their order. */
export interface ComfyNodeSeen {
  node: string;
  title: string;
  class_type: string;
  state: ComfyNodeState;
  /** fraction from 0 to 1; 0..1 */
  progress: number;
  /** seconds; 0.. */
  seconds: number;
}

/** How far a job is; `current_node` is the one that runs, `fraction` that of the whole job. */
export interface ComfyJobProgress {
  /** a count; 0..; default 0 */
  nodes_total: number;
  /** a count; 0..; default 0 */
  nodes_seen: number;
  current_node: string | null;
  node_progression: readonly ComfyNodeSeen[];
  /** fraction from 0 to 1; 0..1; default 0.0 */
  fraction: number;
}

/**
 * `GET /v1/comfy/jobs/{id}`; times are epoch seconds, `error` is a sentence, `code` and `node_errors` say more.
 *
 * `heartbeat_at` is when the worker of a running job was last heard of.
 */
export interface ComfyJobView {
  id: string;
  workflowId: string | null;
  status: "canceled" | "done" | "error" | "queued" | "running";
  /** seconds since the epoch, UTC */
  created_at: number;
  /** seconds since the epoch, UTC */
  started_at: number | null;
  /** seconds since the epoch, UTC */
  finished_at: number | null;
  /** seconds since the epoch, UTC */
  heartbeat_at: number | null;
  /** seconds since the epoch, UTC */
  updated_at: number;
  error: string | null;
  outputs: readonly ComfyOutput[];
  comfy: ComfyWhere;
  progress: ComfyJobProgress;
  code: string | null;
  node_errors: readonly ComfyNodeError[];
  /** default false */
  partial: boolean;
}

/** Answer of `DELETE /v1/comfy/jobs/{id}`; `running` where ComfyUI has not confirmed the interrupt in time. */
export interface ComfyCancelled {
  job_id: string;
  status: "canceled" | "done" | "error" | "queued" | "running";
}

/** A device of an instance, as ComfyUI reports it. */
export interface ComfyDevice {
  name: string;
  type?: string;
  /** GB; 0..; default 0.0 */
  vramTotalGb?: number;
  /** GB; 0..; default 0.0 */
  vramFreeGb?: number;
}

/**
 * One ComfyUI, key `<name>` of the KV bucket `comfy_instances`; also sent on `comfy.instance.<name>`.
 *
 * Up to `origin` it says what is wanted (an administrator's word, or the settings'), the rest what is (the
 * bridge's).  Queue lengths count all of its prompts, others' too.
 */
export interface ComfyInstance {
  /** 1 to 32 of a-z, 0-9, `_` and `-` */
  name: string;
  /** http(s) URL of the instance */
  url: string;
  /** default true */
  enabled: boolean;
  /** takes no more work, finishes what it has; default false */
  draining: boolean;
  tags: readonly string[];
  /** prompts of ours inside it at once; 1..2; default 1 */
  maxPrompts: number;
  /** who entered it: `settings` or `admin`; default "settings" */
  origin: string;
  /** key of the bridge that serves it */
  bridge: string;
  status: ComfyStatus;
  /** stable code of why it is not connected; empty when it is */
  reason: string;
  /** the same as one sentence */
  detail: string;
  version: string;
  devices: readonly ComfyDevice[];
  /** seconds since the epoch, UTC */
  lastConnected: number | null;
  /** seconds since the epoch, UTC */
  lastDisconnected: number | null;
  /** a count; 0..; default 0 */
  reconnectAttempts: number;
  /** how often it was lost, by reason */
  disconnects: { [key: string]: number };
  /** a count; 0..; default 0 */
  queuePending: number;
  /** a count; 0..; default 0 */
  queueRunning: number;
  /** seconds since the epoch, UTC */
  updatedAt: number;
}

/** `GET /v1/comfy/instances`: all of them, by name. */
export interface ComfyInstances {
  instances: readonly ComfyInstance[];
}

/** Body of `PUT /v1/comfy/instances/{name}`: what is left out stays as it is; a new one needs a `url`. */
export interface ComfyInstancePut {
  /** at most 500 characters */
  url?: string | null;
  enabled?: boolean | null;
  draining?: boolean | null;
  tags?: readonly string[] | null;
  /** prompts of ours inside it at once; 1..2 */
  maxPrompts?: number | null;
}

/**
 * A named workflow: what it does, a JSON Schema of its `params`, and where it can run now.
 *
 * `unavailable` says for each instance that cannot run it, why.
 */
export interface ComfyWorkflow {
  id: string;
  title: string;
  description: string;
  /** JSON Schema of `params` */
  params: { [key: string]: unknown };
  /** `required`, `optional` or `none`; default "none" */
  inputImage: string;
  /** kinds of output, such as `images` */
  outputs: readonly string[];
  available: readonly string[];
  unavailable: { [key: string]: string };
}

/** Answer on `comfy.workflows` and body of `GET /v1/comfy/workflows`. */
export interface ComfyWorkflows {
  workflows: readonly ComfyWorkflow[];
}

/** `GET /v1/dreams/{session}/replay`: candidates chosen again from the log, and those that differ. */
export interface DreamReplayed {
  sessionId: string;
  /** a count; 0.. */
  candidates: number;
  different: readonly number[];
}

/** `POST /dreams/start` and `POST /v1/dreams`. */
export interface DreamsStart {
  /** text, in characters; at most 10000 characters */
  prompt: string;
  /** hours; 0.001..24; default 1.0 */
  duration_hours: number;
  /** 0 stays close, 1 wanders far; 0..1; default 0.5 */
  temperature: number;
  /** least score that is kept; 0..1; default 0.7 */
  similarity_threshold: number;
  /** candidates between two full renders; 1..; default 100 */
  render_interval: number;
  /** candidates kept; 10..1000; default 100 */
  top_k: number;
  /** random, linear_walk, grid, evolutionary, temperature, cluster, slerp, or a plugged-in one; default "random" */
  strategy: string;
  /** at most 200 characters */
  mode: string | null;
  /** WIDTHxHEIGHT in pixels; each side 64..4096 and a multiple of 8; at most 9 characters */
  size: string | null;
  /** text, in characters; at most 10000 characters */
  negative_prompt: string | null;
  /** guidance scale; 1 is none; 0..20 */
  guidance_scale: number | null;
  /** denoising steps; 1..150 */
  num_inference_steps: number | null;
  /** how much each scorer counts, by name */
  weights: { [key: string]: number } | null;
  /** seed of the noise; 0..4294967295 */
  seed: number | null;
}

/** Answer of `POST /dreams/start`. */
export interface DreamsStarted {
  status: string;
  sessionId: string;
  base_prompt: string;
  /** hours */
  duration_hours: number;
  /** a count; 0.. */
  top_k: number;
}

/** Answer of `POST /dreams/stop`; zeros where nobody dreamt. */
export interface DreamsStopped {
  status: string;
  /** a count; 0.. */
  total_dreams: number;
  /** a count; 0.. */
  candidates_kept: number;
}

/** Answer of `GET /dreams/status`; null `sessionId` and zeros where there is no session. */
export interface DreamsStatus {
  /** default false */
  is_dreaming: boolean;
  /** a count; 0..; default 0 */
  dream_count: number;
  /** candidates per second; default 0.0 */
  dreams_per_second: number;
  /** a count; 0..; default 0 */
  candidates: number;
  /** a count; 0..; default 0 */
  top_k: number;
  /** seconds; 0..; default 0.0 */
  elapsed_seconds: number;
  sessionId: string | null;
  state: DreamState | null;
}

/** Answer of `GET /dreams/stats`. */
export interface DreamsStats {
  /** default false */
  is_dreaming: boolean;
  /** a count; 0..; default 0 */
  dream_count: number;
  /** candidates per second; default 0.0 */
  dreams_per_second: number;
  /** a count; 0..; default 0 */
  candidates: number;
  /** a count; 0..; default 0 */
  top_k: number;
  /** seconds; 0..; default 0.0 */
  elapsed_seconds: number;
  sessionId: string | null;
  state: DreamState | null;
  /** candidates per hour; default 0.0 */
  dreams_per_hour: number;
  /** a count; 0..; default 0 */
  scored: number;
  /** a count; 0..; default 0 */
  pruned: number;
  /** a count; 0..; default 0 */
  dropped: number;
  /** a count; 0..; default 0 */
  merged: number;
  /** a count; 0..; default 0 */
  rendered: number;
  /** a count; 0..; default 0 */
  in_flight: number;
  /** fraction from 0 to 1; 0..1; default 0.0 */
  best_score: number;
}

/**
 * One of `GET /dreams/top` and `/dreams/recent`; `image_data` is a base64 PNG, null where it is gone.
 *
 * Only the first few of a list come with their picture; `url` and `thumbnailUrl` are there for all.
 */
export interface DreamsCandidate {
  /** seed of the noise; 0..4294967295 */
  seed: number;
  prompt: string;
  /** fraction from 0 to 1; 0..1 */
  score: number;
  /** seconds since the epoch, UTC */
  timestamp: number;
  rendered: boolean;
  image_data: string | null;
  url: string | null;
  thumbnailUrl: string | null;
  params: { [key: string]: unknown };
  /** a count; 0..; default 0 */
  id: number;
  scores: { [key: string]: number };
  parents: readonly number[];
  mutation: string;
  strategy: string;
}

/** What a session was asked for when it began; `seed` is where all its random choices come from. */
export interface DreamPlan {
  /** text, in characters; at most 10000 characters */
  prompt: string;
  /** text, in characters; at most 10000 characters */
  negativePrompt: string | null;
  /** random, linear_walk, grid, evolutionary, temperature, cluster, slerp, or a plugged-in one; default "random" */
  strategy: string;
  /** seconds; 3.6..86400; default 3600.0 */
  durationS: number;
  /** 0 stays close, 1 wanders far; 0..1; default 0.5 */
  temperature: number;
  /** least score that is kept; 0..1; default 0.7 */
  similarityThreshold: number;
  /** candidates between two full renders; 1..; default 100 */
  renderInterval: number;
  /** candidates kept; 10..1000; default 100 */
  topK: number;
  mode: string | null;
  /** WIDTHxHEIGHT in pixels; each side 64..4096 and a multiple of 8; at most 9 characters */
  size: string | null;
  /** guidance scale; 1 is none; 0..20 */
  guidanceScale: number | null;
  /** denoising steps; 1..150 */
  numInferenceSteps: number | null;
  /** how much each scorer counts, by name */
  weights: { [key: string]: number } | null;
  /** seed of the noise; 0..4294967295; default 0 */
  seed: number;
}

/** `GET /v1/dreams/{session}`: a session as it is now. */
export interface DreamView {
  sessionId: string;
  state: DreamState;
  plan: DreamPlan;
  guidance: DreamGuidance;
  stats: DreamStats;
  error: string | null;
  /** seconds since the epoch, UTC */
  startedAt: number;
  /** seconds since the epoch, UTC */
  endsAt: number;
  /** seconds since the epoch, UTC */
  endedAt: number | null;
}

/** `GET /v1/dreams`: sessions, the latest first; `total` counts all of them. */
export interface DreamPage {
  sessions: readonly DreamView[];
  /** a count; 0.. */
  total: number;
}

/** `GET /v1/dreams/{session}/top` and `/recent`; `total` counts all that pass the filters. */
export interface DreamCandidatePage {
  sessionId: string;
  candidates: readonly DreamCandidate[];
  /** a count; 0.. */
  total: number;
}

/** Body of `PATCH /v1/queue`: the gates to set; the others stay as they are. */
export interface QueueControlPatch {
  queue?: Gate | null;
  lanes?: { [key: string]: Gate };
  workers?: { [key: string]: Gate };
}

/**
 * The record of one job.
 *
 * `op` names the operation that wrote this revision, so that a writer whose reply was lost can tell whether its
 * write was applied.  `job_seq` counts the record's revisions from 1.  `worker` is the key of the worker that
 * runs it, `attempt` counts claims.  `lost_workers` are the keys of the workers that were lost while they ran it
 * and were not heard of since, `crashes` how many they are.  `losses` counts how often the server that a worker
 * works with (a ComfyUI) ended under it.  `cancel` asks a running job to stop.
 * Inside a lane jobs go by `position`, lowest first; it starts as the time of submission.
 * `session` names the dream session whose draft it is: nobody is told of such jobs, and they are forgotten as soon
 * as they were looked at.
 */
export interface Job {
  /** 1 to 64 letters, digits, `_` or `-` */
  id: string;
  owner: string;
  type: JobType;
  state: JobState;
  /** default 1 */
  priority: Lane;
  /** order within its lane, lowest first; default 0.0 */
  position: number;
  /** counts the claims of the job, from 1; 0..; default 0 */
  attempt: number;
  /** a count; 0..; default 0 */
  crashes: number;
  lostWorkers: readonly string[];
  /** a count; 0..; default 0 */
  losses: number;
  worker: string | null;
  op: string;
  /** position among the events of this job; 0..; default 1 */
  jobSeq: number;
  /** default false */
  cancel: boolean;
  /** seconds since the epoch, UTC */
  notBefore: number | null;
  /** seconds since the epoch, UTC */
  startBy: number | null;
  /** seconds since the epoch, UTC */
  finishBy: number | null;
  idempotencyKey: string | null;
  retryOf: string | null;
  session: string | null;
  requestHash: string;
  params: GenerateParams | SuperResolutionParams | ComfyParams | SwitchParams;
  outputs: readonly Output[];
  /** default false */
  partial: boolean;
  error: JobError | null;
  meta: JobMeta | null;
  /** seconds since the epoch, UTC */
  createdAt: number;
  /** seconds since the epoch, UTC */
  enqueuedAt: number;
  /** seconds since the epoch, UTC */
  startedAt: number | null;
  /** seconds since the epoch, UTC */
  finishedAt: number | null;
  /** seconds since the epoch, UTC */
  updatedAt: number;
}

/** A LoRA that a mode always wears; `path` as the operator wrote it. */
export interface ModeLora {
  path: string;
  /** weight; 1 is as it was trained */
  strength: number;
  adapterName: string;
}

/**
 * A mode that a worker can serve: a model with its defaults.
 *
 * `loaded` says that it runs without loading anything first; what only loading tells (`family`) is empty before.
 */
export interface ModeInfo {
  model: string;
  /** default false */
  loaded?: boolean;
  loras?: readonly ModeLora[];
  /** default false */
  pinned?: boolean;
  family?: string;
  /** what the network draws; empty until it is known */
  nativeSize?: string;
  /** default "512x512" */
  defaultSize?: string;
  /** denoising steps in all; 0..; default 4 */
  defaultSteps?: number;
  /** guidance scale; default 1.0 */
  defaultGuidance?: number;
  scheduler?: string;
  styles?: readonly string[];
  /** pixels; 0..; default 4096 */
  maxSide?: number;
  /** whether it takes `initImage`; default false */
  initImage?: boolean;
  /** whether it takes `maskImage`; default false */
  maskImage?: boolean;
}

/** A model in a worker's memory; `model` as the operator wrote it, `modes` those that run on it. */
export interface ResidentModel {
  model: string;
  modes?: readonly string[];
  /** its weights; 0..; default 0.0 */
  gb?: number;
  loras?: readonly string[];
}

/** Heartbeat record of one worker process, key `<name>.<incarnation>` of the KV bucket `workers`. */
export interface Worker {
  name: string;
  incarnation: string;
  service: string;
  state: WorkerState;
  /** the machine, as its monitor calls it; empty where not told */
  node: string;
  /** default "cpu" */
  device: string;
  backend: string;
  jobTypes: readonly JobType[];
  modes: { [key: string]: ModeInfo };
  /** why a mode cannot be served, by its name */
  unavailable: { [key: string]: string };
  models: readonly ResidentModel[];
  /** that of jobs that name none */
  mode: string | null;
  /** the mode after a first start */
  defaultMode: string | null;
  /** the mode whose model is being loaded; empty if none is */
  loading: string;
  /** how much of it is in place; 0..1; default 0.0 */
  loadProgress: number;
  schedulers: readonly string[];
  /** ComfyUI workflows that it can run */
  workflows: readonly string[];
  /** what its operator says of it */
  tags: readonly string[];
  /** default false */
  superres: boolean;
  /** what a pass multiplies a side by; 0..; default 2 */
  superresScale: number;
  /** a count; 0..; default 1 */
  slots: number;
  running: readonly string[];
  vram: Vram;
  detail: string;
  /** seconds since the epoch, UTC; default 0.0 */
  startedAt: number;
  /** seconds since the epoch, UTC; default 0.0 */
  beatAt: number;
}

/**
 * Record of one session, key `<sessionId>` of the KV bucket `dreams`; written by compare-and-set.
 *
 * `plan` is what was asked for, `guidance` what was changed since, all together.  `host` is the dreams process
 * that works on it.  `best` are its first few candidates; all of them come from its log.
 */
export interface DreamSession {
  /** 1 to 64 letters, digits, `_` or `-` */
  id: string;
  owner: string;
  state: DreamState;
  plan: DreamPlan;
  guidance: DreamGuidance;
  stats: DreamStats;
  best: readonly DreamCandidate[];
  host: string;
  /** default false */
  stopAsked: boolean;
  error: string | null;
  op: string;
  /** seconds since the epoch, UTC */
  startedAt: number;
  /** seconds since the epoch, UTC */
  endsAt: number;
  /** seconds since the epoch, UTC */
  endedAt: number | null;
  /** seconds since the epoch, UTC */
  updatedAt: number;
}

/**
 * The session began; `params` are what drafts have in common.
 *
 * What the service was set to is here too, so that a replay does not depend on it: the modifiers of prompts by
 * group, and how much each scorer counts where nobody says otherwise.
 */
export interface Started {
  event: "started";
  plan: DreamPlan;
  params: GenerateParams;
  modifiers?: { [key: string]: readonly string[] };
  /** how much each scorer counts, by name */
  weights?: { [key: string]: number };
}

/** A process took the session over; whoever had it before can append no more. */
export interface Adopted {
  event: "adopted";
  host: string;
}

/** A guide is in force from the next candidate on. */
export interface Guided {
  event: "guided";
  guidance: DreamGuidance;
}

/** A strategy chose a candidate: `params` make its draft, job `job`; its lineage is `parents` and `mutation`. */
export interface Proposed {
  event: "proposed";
  /** number of the candidate in its session, from 1; 1.. */
  id: number;
  job: string;
  params: GenerateParams;
  strategy: string;
  parents?: readonly number[];
  mutation?: string;
  modifiers?: readonly string[];
}

/** A draft was given up half-way: its estimate scored `estimate` at this part of its steps. */
export interface Pruned {
  event: "pruned";
  /** number of the candidate in its session, from 1; 1.. */
  id: number;
  /** fraction from 0 to 1; 0..1 */
  estimate: number;
  /** fraction from 0 to 1; 0..1 */
  progress: number;
}

/** A draft was given up for another reason: `guided`, `failed`, `lost`, `stopped`. */
export interface Dropped {
  event: "dropped";
  /** number of the candidate in its session, from 1; 1.. */
  id: number;
  why: string;
}

/**
 * A draft was judged.  `scores` are calibrated, by scorer; `signature` is what likeness is measured by.
 *
 * `hash` is a perceptual one.  `key` is the picture in the store, `width` and `height` its size in pixels.
 */
export interface Scored {
  event: "scored";
  /** number of the candidate in its session, from 1; 1.. */
  id: number;
  scores: { [key: string]: number };
  hash: string;
  /** 64 signed bytes, base64 */
  signature?: string;
  key?: string;
  /** pixels; 0..; default 0 */
  width?: number;
  /** pixels; 0..; default 0 */
  height?: number;
}

/** A judged candidate is among the best; `out` are those that it displaced. */
export interface Kept {
  event: "kept";
  /** number of the candidate in its session, from 1; 1.. */
  id: number;
  /** fraction from 0 to 1; 0..1 */
  score: number;
  out?: readonly number[];
}

/** A judged candidate is a near duplicate; the better of the two stays. */
export interface Merged {
  event: "merged";
  /** number of the candidate in its session, from 1; 1.. */
  id: number;
  /** number of the candidate in its session, from 1; 1.. */
  into: number;
}

/** The full picture of a candidate was ordered, as job `job`. */
export interface Rendering {
  event: "rendering";
  /** number of the candidate in its session, from 1; 1.. */
  id: number;
  job: string;
}

/** The full picture of a candidate is there; without a key it could not be made. */
export interface Rendered {
  event: "rendered";
  /** number of the candidate in its session, from 1; 1.. */
  id: number;
  key?: string;
}

/** The session passed into this state. */
export interface Stopped {
  event: "stopped";
  state: DreamState;
  why?: string;
}

/** One revision of a session's log: what happened at once, written by `host`, `op` naming the write. */
export interface DreamLogEntry {
  /** seconds since the epoch, UTC */
  at: number;
  host: string;
  op: string;
  events: readonly (Started | Adopted | Guided | Proposed | Pruned | Dropped | Scored | Kept | Merged | Rendering | Rendered | Stopped)[];
}

/** Heartbeat of a dreams process, key `<name>.<incarnation>` of the bucket `dream_hosts`. */
export interface DreamHost {
  name: string;
  incarnation: string;
  sessions: readonly string[];
  strategies: readonly string[];
  scorers: readonly string[];
  /** seconds since the epoch, UTC; default 0.0 */
  beatAt: number;
}

/** The mode one worker was switched to, key `<worker name>` of the KV bucket `modes`; kept over restarts. */
export interface ActiveMode {
  worker: string;
  mode: string;
  /** seconds since the epoch, UTC */
  updatedAt: number;
}

/** A job's latest checkpoint, key `<jobId>` of the KV bucket `checkpoints`: after which step, and where. */
export interface CheckpointHead {
  /** denoising steps done; 0.. */
  step: number;
  /** a count; 0.. */
  generation: number;
  /** a count; 0.. */
  parts: number;
  sha256: string;
}

/**
 * Latest progress of one running job, on `job.progress.<id>`; repeated at least once a second.
 *
 * `progress` is the whole job's fraction 0..1 and never falls within an attempt; `step` of `steps` counts
 * denoising steps, in a job of type `sr` the tiles of all its passes, in a ComfyUI job those of the node that
 * runs.  `node` is that node's title (or class), `comfy` tells of all of them.
 */
export interface Progress {
  jobId: string;
  /** counts the claims of the job, from 1; 0.. */
  attempt: number;
  phase: Phase;
  /** denoising steps done; 0..; default 0 */
  step?: number;
  /** denoising steps in all; 0..; default 0 */
  steps?: number;
  /** fraction from 0 to 1; 0..1; default 0.0 */
  progress?: number;
  /** seconds; 0..; default 0.0 */
  stepSeconds?: number;
  node?: string;
  comfy?: ComfyRun | null;
}

/** What the picture after it shows: which job and step, its size in pixels and its media type. */
export interface PreviewHeader {
  jobId: string;
  /** counts the claims of the job, from 1; 0.. */
  attempt: number;
  /** denoising steps done; 0.. */
  step: number;
  /** denoising steps in all; 0.. */
  steps: number;
  /** pixels; 0.. */
  width: number;
  /** pixels; 0.. */
  height: number;
  /** default "image/jpeg" */
  contentType: string;
}

/** Asks a worker to look at a job's record now (it was cancelled or changed). */
export interface WorkerHint {
  /** 1 to 64 letters, digits, `_` or `-` */
  jobId: string;
}

/** How much an alert matters. */
export type AlertLevel = "info" | "warning" | "critical";

/**
 * Something an operator should know, on `system.alert`: once as it begins, changes its level or ends.
 *
 * While it lasts it is repeated, for those who subscribed later.  `key` names what it is about; `resolved` ends
 * the alert of the same key.  `value` and `threshold` are absent where the alert is about a fact.
 */
export interface SystemAlert {
  key: string;
  /** stable code, such as gpu_hot */
  code?: string;
  level: AlertLevel;
  /** service and instance that noticed */
  source: string;
  message: string;
  /** in the unit that `unit` names */
  value?: number | null;
  /** in the unit that `unit` names */
  threshold?: number | null;
  /** unit of `value` and `threshold`, such as `%` or `°C` */
  unit?: string;
  /** default false */
  resolved?: boolean;
  /** seconds since the epoch, UTC */
  at: number;
}

/**
 * The queue on `queue.state`: what `queue:state` says, for services; no row has a `jobId`.
 *
 * Each gateway tells what it sees: of two messages of one `epoch` the one with the higher `seq` (the revision of
 * the bucket `jobs` that it shows) is the later.
 */
export interface QueueMirror {
  /** a count; 0.. */
  pending: number;
  /** a count; 0.. */
  running: number;
  /** a count; 0.. */
  depth: number;
  paused: boolean;
  jobs: readonly QueueRow[];
  /** position in the event log of all jobs; the highest of job:state, job:complete and job:error that was seen is the cursor to resume from; 0.. */
  seq: number;
  /** identity of the event log; a cursor of another epoch cannot be resumed; at most 100 characters */
  epoch: string;
}

/** A session's state on `dream.status`, at least every 2 seconds while it dreams; latest wins. */
export interface DreamStatusEvent {
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId: string;
  owner: string;
  state: DreamState;
  stats: DreamStats;
}

/** A promising candidate as it was found, on `dream.candidate.<session>`. */
export interface DreamCandidateEvent {
  /** 1 to 64 letters, digits, `_` or `-` */
  sessionId: string;
  owner: string;
  candidate: DreamCandidate;
}

/**
 * Answer on `dream.ctl`: an error `code`, or what was asked for.
 *
 * `total` counts all candidates that pass the filters, or that were replayed; `different` are those of a replay
 * that came out otherwise.
 */
export interface DreamAnswer {
  /** an error code */
  code?: ErrorCode | (string & {});
  message?: string;
  fields?: readonly FieldError[];
  session?: DreamSession | null;
  sessions?: readonly DreamSession[];
  candidates?: readonly DreamCandidate[];
  /** a count; 0..; default 0 */
  total?: number;
  different?: readonly number[];
}

/** Request on `comfy.check`: a job before it is taken, and whether its owner may send graphs of his own. */
export interface ComfyCheck {
  params: ComfyParams;
  /** default false */
  maySendGraphs: boolean;
}

/**
 * One administrative or security event, on `audit.<action>`, kept 30 days by the stream `AUDIT`.
 *
 * It never holds prompt text or secrets.
 */
export interface AuditEvent {
  /** dotted, such as mode.switch or auth.refused */
  action: string;
  user: string;
  target: string;
  allowed: boolean;
  detail: string;
  requestId: string;
  /** seconds since the epoch, UTC */
  at: number;
}

/**
 * Answer to `ComfyCheck`: no `code` if it can run; else the error for the client.
 *
 * `fields` are wrong parameters of ours, `nodeErrors` what ComfyUI would object to.
 */
export interface ComfyVerdict {
  /** an error code */
  code?: ErrorCode | (string & {});
  message?: string;
  fields?: readonly FieldError[];
  nodeErrors?: readonly ComfyNodeError[];
}

/** Anything a client may send. */
export type ClientMessage =
  | Ping
  | Authenticate
  | Hello
  | Resume
  | JobSubmit
  | JobCancel
  | JobPreview
  | JobPriority
  | StoragePut
  | DreamStart
  | DreamStop
  | DreamTop
  | DreamRecent
  | DreamGuide;

/** Anything a server may send as text. */
export type ServerMessage =
  | Pong
  | Error
  | Authenticated
  | HelloOk
  | Resumed
  | JobAck
  | JobStateChanged
  | JobProgress
  | JobComplete
  | JobFailed
  | JobCancelOk
  | JobPriorityOk
  | JobPreviewOk
  | DreamStarted
  | DreamStopped
  | DreamStatus
  | DreamTopResult
  | DreamRecentResult
  | DreamGuideOk
  | DreamCandidateFound
  | StoragePutOk
  | SystemStatus
  | SystemBackends
  | QueueStateChanged;

/** Message by its `type`. */
export interface ClientMessages {
  "ping": Ping;
  "AUTHENTICATE": Authenticate;
  "hello": Hello;
  "resume": Resume;
  "job:submit": JobSubmit;
  "job:cancel": JobCancel;
  "job:preview": JobPreview;
  "job:priority": JobPriority;
  "storage:put": StoragePut;
  "dream:start": DreamStart;
  "dream:stop": DreamStop;
  "dream:top": DreamTop;
  "dream:recent": DreamRecent;
  "dream:guide": DreamGuide;
}

/** Message by its `type`. */
export interface ServerMessages {
  "pong": Pong;
  "error": Error;
  "AUTHENTICATED": Authenticated;
  "hello:ok": HelloOk;
  "resumed": Resumed;
  "job:ack": JobAck;
  "job:state": JobStateChanged;
  "job:progress": JobProgress;
  "job:complete": JobComplete;
  "job:error": JobFailed;
  "job:cancel:ok": JobCancelOk;
  "job:priority:ok": JobPriorityOk;
  "job:preview:ok": JobPreviewOk;
  "dream:started": DreamStarted;
  "dream:stopped": DreamStopped;
  "dream:status": DreamStatus;
  "dream:top:result": DreamTopResult;
  "dream:recent:result": DreamRecentResult;
  "dream:guide:ok": DreamGuideOk;
  "dream:candidate": DreamCandidateFound;
  "storage:put:ok": StoragePutOk;
  "system:status": SystemStatus;
  "system:backends": SystemBackends;
  "queue:state": QueueStateChanged;
}

/** Bodies of our own HTTP endpoints. */
export type HttpBody =
  | JobView
  | JobAccepted
  | JobPage
  | JobPatch
  | QueueView
  | UploadAccepted
  | TextToStore
  | TextStored
  | ErrorBody
  | ModelsStatus
  | ModesView
  | ModeSwitch
  | ModeSwitched
  | ModesReread
  | VramView
  | ComfyRequest
  | ComfyAccepted
  | ComfyJobView
  | ComfyCancelled
  | ComfyInstances
  | ComfyInstancePut
  | ComfyWorkflow
  | ComfyWorkflows
  | DreamReplayed
  | DreamsStart
  | DreamsStarted
  | DreamsStopped
  | DreamsStatus
  | DreamsStats
  | DreamsCandidate
  | DreamView
  | DreamPage
  | DreamCandidatePage
  | DreamGuidance
  | QueueControlPatch;

/** Records of the KV buckets and payloads of the NATS subjects. */
export type BusRecord =
  | Job
  | Worker
  | QueueControl
  | DreamSession
  | DreamLogEntry
  | DreamHost
  | ComfyInstance
  | ActiveMode
  | CheckpointHead
  | Progress
  | PreviewHeader
  | WorkerHint
  | SystemStatus
  | SystemBackends
  | SystemAlert
  | QueueMirror
  | DreamStatusEvent
  | DreamCandidateEvent
  | DreamAnswer
  | ComfyCheck
  | AuditEvent
  | ComfyVerdict;
