// A sidecar in memory for one service: the real protocol on a real socket, with the levers a test needs.
import {
  Server,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerWritableStream,
  status as Status,
} from "@grpc/grpc-js";
import {
  type Applied,
  type Description,
  DrainCause,
  Feature,
  type FromService,
  type Hello,
  type Load,
  Phase,
  Settings,
  SidecarService,
  type State,
  type ToService,
} from "../gen/synego/v1/sidecar.js";

/** What a service told its sidecar. */
export interface Seen {
  /** Every `Hello`, the first one first. */
  readonly hellos: readonly Hello[];
  /** Every state, those in a `Hello` included. */
  readonly states: readonly State[];
  readonly loads: readonly Load[];
  readonly applied: readonly Applied[];
}

type Attachment = ServerDuplexStream<FromService, ToService>;

/** One sidecar. */
export class TestSidecar implements Seen {
  readonly hellos: Hello[] = [];
  readonly states: State[] = [];
  readonly loads: Load[] = [];
  readonly applied: Applied[] = [];
  readonly #server = new Server();
  readonly #outbound: string;
  readonly #instance: string;
  readonly #changed = new Set<() => void>();
  #attachment: Attachment | undefined;
  #attachments = 0;
  #settings: Settings = Settings.fromPartial({ revision: 1n });
  #refusal: { code: Status; details: string } | undefined;

  /** `outbound`: base URL that is told; `instance`: name that is told. */
  constructor(outbound: string, instance: string) {
    this.#outbound = outbound;
    this.#instance = instance;
    this.#server.addService(SidecarService, {
      attach: (stream: Attachment) => this.#attach(stream),
      log: (stream: ServerWritableStream<unknown, unknown>) => stream.destroy(),
      describe: (_call: unknown, callback: (error: null, description: Description) => void) => callback(null, this.#describe()),
    });
  }

  /** Listens at `unix:PATH`. */
  async listen(address: string): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.bindAsync(address, ServerCredentials.createInsecure(), (failure) => (failure ? reject(failure) : resolve()));
    });
  }

  /** The phase last told; undefined before the first `Hello`. */
  get phase(): Phase | undefined {
    return this.states.at(-1)?.phase;
  }

  /** Whether a service is attached now. */
  get isAttached(): boolean {
    return this.#attachment !== undefined;
  }

  /** Addresses that take requests now, by protocol; none while the service is not ready. */
  listener(protocol: number): string | undefined {
    const takes = this.phase === Phase.PHASE_READY || this.phase === Phase.PHASE_DEGRADED;
    return takes ? this.hellos.at(-1)?.listeners.find((listener) => listener.protocol === protocol)?.address : undefined;
  }

  /** Resolves once `condition` holds; looks again whenever something was told. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#changed.add(resolve));
  }

  /** Asks the service to drain. */
  drain(cause: DrainCause, deadlineMs: number): void {
    this.#send({ $case: "drain", value: { cause, deadlineMs } });
  }

  /** Ends the stream as a crash does; resolves once the service attached again. */
  async drop(): Promise<void> {
    const before = this.#attachments;
    this.#attachment?.emit("error", failure(Status.UNAVAILABLE, "dropped"));
    await this.until(() => this.#attachments > before);
  }

  /** Says that a successor holds the socket; resolves once the service attached again. */
  async move(): Promise<void> {
    const before = this.#attachments;
    this.#send({ $case: "moved", value: {} });
    await this.until(() => this.#attachments > before);
  }

  /** Refuses all attachments from now on, the present one too. */
  refuse(code: Status, details: string): void {
    this.#refusal = { code, details };
    this.#attachment?.emit("error", failure(Status.UNAVAILABLE, details));
  }

  /** Sends settings; resolves with what became of them. */
  async push(change: Partial<Settings>): Promise<Applied> {
    const revision = this.#settings.revision + 1n;
    this.#settings = { ...this.#settings, ...change, revision };
    this.#send({ $case: "settings", value: this.#settings });
    const answer = (): Applied | undefined => this.applied.find((applied) => applied.revision === revision);
    await this.until(() => answer() !== undefined);
    return answer() as Applied;
  }

  /** Ends for good. */
  close(): void {
    this.#server.forceShutdown();
    this.#wake();
  }

  #send(is: NonNullable<ToService["is"]>): void {
    this.#attachment?.write({ is });
  }

  #attach(stream: Attachment): void {
    stream.on("data", (message: FromService) => this.#take(stream, message));
    stream.on("end", () => stream.end());
    stream.on("error", () => undefined); // the other side is gone; `close` says so
    stream.on("close", () => this.#gone(stream));
    stream.on("cancelled", () => this.#gone(stream));
  }

  #gone(stream: Attachment): void {
    if (this.#attachment === stream) this.#attachment = undefined;
    this.#wake();
  }

  #take(stream: Attachment, { is }: FromService): void {
    switch (is?.$case) {
      case "hello":
        this.#hello(stream, is.value);
        break;
      case "state":
        this.states.push(is.value);
        break;
      case "load":
        this.loads.push(is.value);
        break;
      case "applied":
        this.applied.push(is.value);
        break;
    }
    this.#wake();
  }

  #hello(stream: Attachment, hello: Hello): void {
    if (this.#refusal !== undefined) {
      stream.emit("error", failure(this.#refusal.code, this.#refusal.details));
      return;
    }
    this.hellos.push(hello);
    if (hello.state !== undefined) this.states.push(hello.state);
    this.#attachment = stream;
    this.#attachments += 1;
    this.#send({
      $case: "welcome",
      value: {
        protocol: 1,
        attachmentId: hello.attachmentId || `test-${this.#attachments}`,
        mesh: "test",
        instance: this.#instance,
        zone: "",
        outbound: this.#outbound,
        reportEveryMs: 250,
        features: [Feature.FEATURE_LIVE_CONFIG, Feature.FEATURE_IN_PLACE_DRAIN],
        settings: this.#settings,
      },
    });
  }

  #describe(): Description {
    return {
      version: "0.1.0",
      protocolMin: 1,
      protocolMax: 1,
      features: [Feature.FEATURE_LIVE_CONFIG, Feature.FEATURE_IN_PLACE_DRAIN],
      mesh: "test",
      service: this.hellos.at(-1)?.service ?? "",
      instance: this.#instance,
      outbound: this.#outbound,
      maxMessageBytes: 1024 * 1024,
    };
  }

  #wake(): void {
    const waiting = [...this.#changed];
    this.#changed.clear();
    for (const wake of waiting) wake();
  }
}

/** What ends a stream of grpc-js with this status: emitted as `error`, since destroying it would send none. */
function failure(code: Status, details: string): Error {
  return Object.assign(new Error(details), { code, details });
}
