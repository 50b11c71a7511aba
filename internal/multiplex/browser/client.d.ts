// EventSource has the interface of the browser's own. Its instances share one connection, over
// all tabs of the browser.
declare class SharedEventSource extends EventTarget implements globalThis.EventSource {
  static readonly CONNECTING: 0;
  static readonly OPEN: 1;
  static readonly CLOSED: 2;
  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSED: 2;

  constructor(url: string | URL, init?: EventSourceInit);

  readonly url: string;
  readonly withCredentials: boolean;
  readonly readyState: number;

  onopen: ((this: globalThis.EventSource, event: Event) => unknown) | null;
  onmessage: ((this: globalThis.EventSource, event: MessageEvent) => unknown) | null;
  onerror: ((this: globalThis.EventSource, event: Event) => unknown) | null;

  close(): void;

  addEventListener<K extends keyof EventSourceEventMap>(
    type: K,
    listener: (this: globalThis.EventSource, event: EventSourceEventMap[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: (this: globalThis.EventSource, event: MessageEvent) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof EventSourceEventMap>(
    type: K,
    listener: (this: globalThis.EventSource, event: EventSourceEventMap[K]) => unknown,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: (this: globalThis.EventSource, event: MessageEvent) => unknown,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | EventListenerOptions,
  ): void;
}

export { SharedEventSource as EventSource };
