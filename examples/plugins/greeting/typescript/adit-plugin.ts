// The types of adit:plugin, as componentize-qjs has them: names in camel case, a variant as a tag with its
// value, and what a function throws is the error of its result.

export type Header = [name: string, value: string];

export type HeaderOp =
  | { tag: "set"; val: Header }
  | { tag: "append"; val: Header }
  | { tag: "remove"; val: string };

export interface RequestHead {
  id: string;
  method: string;
  scheme: string;
  authority: string;
  pathWithQuery: string;
  clientIp: string;
  headers: Header[];
}

export interface ResponseHead {
  id: string;
  status: number;
  headers: Header[];
  carry: Uint8Array;
}

export interface RequestEdits {
  method?: string;
  authority?: string;
  pathWithQuery?: string;
  headers: HeaderOp[];
  carry: Uint8Array;
}

export interface ResponseEdits {
  status?: number;
  headers: HeaderOp[];
}

export interface Reply {
  status: number;
  headers: Header[];
  body: Uint8Array;
}

export interface Fault {
  code: string;
  message: string;
}

export interface Manifest {
  name: string;
  version: string;
  requestHeaders: string[];
  responseHeaders: string[];
}

export type Action<Edits> =
  | { tag: "next" }
  | { tag: "edit"; val: Edits }
  | { tag: "respond"; val: Reply };

export interface Lifecycle {
  describe(): Manifest;
  configure(config: string): void;
}

export interface RequestFilter {
  onRequest(head: RequestHead): Action<RequestEdits>;
}

export interface ResponseFilter {
  onResponse(head: ResponseHead): Action<ResponseEdits>;
}

/** How long a body a filter wants to see, and what becomes of a message whose body it cannot be shown. */
export interface BodyLimits {
  most: number;
  beyond: "refuse" | "pass";
}

export interface BodyEdits<Edits> {
  head: Edits;
  body?: Uint8Array;
}

export interface RequestBodyFilter {
  requestBodyLimits(): BodyLimits;
  onRequestBody(head: RequestHead, body: Uint8Array): Action<BodyEdits<RequestEdits>>;
}

export interface ResponseBodyFilter {
  responseBodyLimits(): BodyLimits;
  onResponseBody(head: ResponseHead, body: Uint8Array): Action<BodyEdits<ResponseEdits>>;
}

export interface Ticker {
  onTick(): void;
}
