// An EventSource whose instances share one connection, over all tabs: sse_multiplex.
// It is in a SharedWorker, which runs this module too; else in the tab that has a lock, to
// which others speak over a BroadcastChannel; else in each tab.

const base = new URL('.', import.meta.url);
const name = 'sse_multiplex ' + base;
const Native = globalThis.EventSource;
const {locks} = navigator; // there are none without TLS
const most = 32; // streams of a connection, as the server allows
const later = (f, ms) => setTimeout(f, ms);

// A Hub has the connections. Its members are instances: mark is where it is, line what it
// hears, and next what it is to hear.
class Hub {
  members = new Map();
  lines = [];

  join(m) {
    this.members.set(m.key, m);
    this.plan(20);
  }

  leave(match) {
    for (const m of this.members.values()) if (match(m)) this.members.delete(m.key);
    // A tab that the browser keeps has no time for later.
    this.members.size ? this.plan(5000) : this.connect();
  }

  // plan makes tabs that open together cause one connection.
  plan(ms) {
    const at = Date.now() + ms;
    if (at >= this.at) return;
    clearTimeout(this.timer);
    this.at = at;
    this.timer = later(() => this.connect(), ms);
  }

  // connect replaces the connections. Members at the same place share a stream. What has a mark
  // goes on from there; what has none hears its old line until then.
  connect() {
    this.at = undefined;
    const streams = new Map();
    for (const line of this.lines) line.stale = true;
    for (const m of this.members.values()) {
      const of = [m.url, m.cred, m.mark].join(' ');
      streams.set(of, [...streams.get(of) ?? [], m]);
    }
    for (const cred of [true, false]) {
      // Servers bound the number of streams, the URL and the id.
      let part, url, id;
      for (const some of streams.values()) {
        const [m] = some;
        if (m.cred !== cred) continue;
        url += encodeURIComponent(m.url).length + 3;
        id += m.mark.length + 3;
        if (part?.length < most && url < 4000 && id < 1000) {
          part.push(some);
        } else {
          if (part) this.open(part, cred);
          part = [some];
          url = encodeURIComponent(m.url).length + 3;
          id = m.mark.length + 3;
        }
      }
      if (part) this.open(part, cred);
    }
    this.sweep();
  }

  open(some, cred) {
    const line = {heard: new Set()}, query = [], id = [];
    this.lines.push(line);
    some.forEach((members, i) => {
      const alias = i.toString(36), {url, mark} = members[0];
      query.push(alias + '=' + encodeURIComponent(url));
      if (mark) id.push(alias + ':' + mark);
      for (const m of members) {
        m.next = [line, alias];
        if (m.mark || !m.line) this.move(m);
      }
    });
    if (id.length) query.push('lastEventId=' + encodeURIComponent(id));
    line.source = new Native(base + '?' + query.join('&'), {withCredentials: cred});
    some.forEach((members, i) => {
      const alias = i.toString(36);
      for (const type of ['open', 'gap', 'end', 'error']) this.on(line, alias, type, () => {});
      for (const m of members) for (const type of m.types) this.hear(m.next, type);
    });
    line.source.onerror = () => {
      const {readyState} = line.source;
      for (const m of this.of(line)) readyState === 2 ? this.end(m, 'native') : this.end(m);
    };
  }

  move(m) {
    [m.line, m.alias] = m.next;
  }

  // stay makes a member go on from its mark, once it has one.
  stay(m) {
    m.next = [m.line, m.alias];
    this.plan(20);
  }

  sweep() {
    const used = new Set([...this.members.values()].flatMap(m => [m.line, m.next?.[0]]));
    this.lines = this.lines.filter(line => used.has(line) || line.source.close());
  }

  of(line, alias) {
    return [...this.members.values()].filter(m => m.line === line && (alias ?? m.alias) === m.alias);
  }

  end(m, what = 'end') {
    m.open = false;
    if (what !== 'end') this.members.delete(m.key);
    m.send({n: m.n, what});
  }

  on(line, alias, type, f) {
    const name = alias + '/' + type;
    if (line.heard.has(name)) return;
    line.heard.add(name);
    line.source.addEventListener(name, e => {
      if (e.data === undefined) return;
      const at = new Map(e.lastEventId ? e.lastEventId.split(',').map(p => p.split(':')) : []);
      if (type === 'open') {
        for (const m of this.members.values()) {
          if (m.next?.[0] !== line || m.next[1] !== alias) continue;
          // What has got ids meanwhile hears of the first by its old line, and stays with that.
          if (m.line !== line && at.get(alias)) later(() => m.mark || (this.move(m), this.sweep()), 1000);
          else this.move(m);
        }
        this.sweep();
      }
      for (const m of this.of(line)) {
        const was = m.mark;
        m.mark = at.get(m.alias) ?? '';
        if (line.stale && !was && m.mark) this.stay(m);
      }
      for (const m of this.of(line, alias)) {
        if (type === 'open') {
          if (!m.open) m.send({n: m.n, what: type});
          m.open = true;
        } else if (type === 'end') {
          this.end(m);
        } else if (type === 'error') {
          const {status} = JSON.parse(e.data);
          this.end(m, status > 299 && status < 400 || [400, 406, 413, 431].includes(status) ? 'native' : 'close');
        } else {
          f(m, e);
        }
      }
    });
  }

  hear([line, alias], type) {
    this.on(line, alias, (/^(~|(open|gap|end|error)$)/.test(type) ? '~' : '') + type,
      (m, e) => m.send({n: m.n, type, data: e.data, mark: m.mark}));
  }

  take(tab, {join, leave, listen, bye}, send) {
    for (const j of join ?? []) {
      const key = tab + j.n;
      if (!this.members.has(key)) this.join({...j, key, tab, send, types: new Set(j.types)});
    }
    if (leave) this.leave(m => m.key === tab + leave);
    if (bye) this.leave(m => m.tab === tab);
    const m = listen && this.members.get(tab + listen[0]);
    if (m && !m.types.has(listen[1])) {
      m.types.add(listen[1]);
      for (const line of [m.line && [m.line, m.alias], m.next]) if (line) this.hear(line, listen[1]);
    }
  }

  // watch forgets a tab when it has died: it held a lock of its name.
  watch(tab) {
    locks?.request(name + tab, () => this.leave(m => m.tab === tab));
  }
}

const tabs = (hub = new Hub(), known = new Set()) => {
  return (tab, said, send) => {
    if (!known.has(tab)) hub.watch(tab);
    known.add(tab);
    hub.take(tab, said, send);
  };
};

if (globalThis.SharedWorkerGlobalScope) {
  const take = tabs();
  const alive = new Promise(f => locks?.request(name + 'worker', () => (f(), new Promise(() => {}))));
  onconnect = ({ports: [port]}) => {
    alive.then(() => port.postMessage({alive: true}));
    port.onmessage = ({data}) => take(data.tab, data, said => port.postMessage(said));
  };
}

// The tab.
const mine = new Map();
let count = 0, tell, undo = [];

const joins = () => ({join: [...mine.values()].map(s => s.asJoin())});
const hear = said => mine.get(said.n)?.hear(said);

// hold holds a lock until undo.
const hold = (of, f) => {
  const stop = new AbortController();
  locks.request(of, {signal: stop.signal}, () => {
    const until = new Promise(free => undo.push(free));
    f?.();
    return until;
  }).catch(() => {});
  undo.push(() => stop.abort());
};

// reach finds the hub, once that can see that the tab is alive.
function reach(Worker = globalThis.SharedWorker) {
  const tab = Math.random().toString(36).slice(2) + ' ';
  tell = () => {};
  locks ? hold(name + tab, () => find(tab, Worker)) : find(tab, Worker);
}

function find(tab, Worker) {
  if (Worker) {
    let worker;
    try {
      worker = new Worker(import.meta.url, {type: 'module', name});
    } catch { // the module is another site's
      return find(tab);
    }
    worker.onerror = () => (leave(), reach(null)); // it may not be run
    // The worker holds a lock: whoever gets that knows that the worker has died.
    worker.port.onmessage = ({data}) => data.alive ? hold(name + 'worker', () => (leave(), resume())) : hear(data);
    tell = said => worker.port.postMessage({tab, ...said});
    undo.push(() => worker.port.close());
  } else if (globalThis.BroadcastChannel && locks) {
    const channel = new BroadcastChannel(name);
    let take, stop;
    channel.onmessage = ({data}) => {
      if (data.to === tab) hear(data.said);
      else if (data.hello) tell(joins());
      else if (data.tab) take?.(data.tab, data, said => channel.postMessage({to: data.tab, said}));
    };
    tell = said => take ? take(tab, said, hear) : channel.postMessage({tab, ...said});
    hold(name, () => {
      const hub = new Hub();
      take = tabs(hub);
      stop = () => hub.leave(() => true);
      channel.postMessage({hello: true});
      tell(joins());
    });
    undo.push(() => (stop?.(), channel.close()));
  } else {
    const hub = new Hub();
    tell = said => hub.take(tab, said, hear);
    undo.push(() => hub.leave(() => true));
  }
  tell(joins());
}

// leave lets go of the hub: the browser can keep this tab.
function leave() {
  tell?.({bye: true});
  tell = null;
  for (const f of undo.splice(0)) f();
}

function resume() {
  if (tell || !mine.size) return;
  for (const s of mine.values()) s.hear({what: 'end'});
  reach();
}

if (globalThis.document) {
  addEventListener('pagehide', leave);
  addEventListener('pageshow', resume);
  document.addEventListener('freeze', leave);
  document.addEventListener('resume', resume);
}

export class EventSource extends EventTarget {
  #url; #cred; #state = 0; #n; #mark = ''; #id = ''; #types = new Set(); #native;

  constructor(url, init = {}) {
    super();
    if (!arguments.length) throw new TypeError('EventSource: the URL is missing');
    let at;
    try {
      at = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    } catch {
      throw new DOMException('EventSource: cannot parse ' + url, 'SyntaxError');
    }
    this.#url = at.href;
    this.#cred = !!init?.withCredentials;
    this.#n = ++count;
    if (at.origin !== base.origin || /%2f|%5c/i.test(at.pathname) || !globalThis.document) return this.#own();
    mine.set(this.#n, this);
    tell ? tell({join: [this.asJoin()]}) : reach();
  }

  get [Symbol.toStringTag]() { return 'EventSource'; }
  get url() { return this.#url; }
  get withCredentials() { return this.#cred; }
  get readyState() { return this.#native?.readyState ?? this.#state; }

  close() {
    this.#state = 2;
    this.#native?.close();
    if (mine.delete(this.#n)) tell?.({leave: this.#n});
  }

  addEventListener(type, ...rest) {
    super.addEventListener(type, ...rest);
    if (this.#types.has(type += '')) return;
    this.#types.add(type);
    if (this.#native) this.#pass(type);
    else if (this.#state < 2) tell?.({listen: [this.#n, type]});
  }

  asJoin() {
    const {pathname, search} = new URL(this.#url);
    return {n: this.#n, url: pathname + search, cred: this.#cred, mark: this.#mark, types: [...this.#types]};
  }

  hear({what, type, data, mark}) {
    if (type) {
      this.#mark = mark;
      if (mark[0] !== '~') this.#id = decodeURIComponent(mark);
      this.dispatchEvent(new MessageEvent(type, {data, lastEventId: this.#id, origin: base.origin}));
    } else if (what === 'native') {
      mine.delete(this.#n);
      this.#own();
    } else if (what !== 'open' || this.#state !== 1) { // else another tab has it now
      this.#state = {open: 1, end: 0, close: 2}[what];
      if (what === 'close') mine.delete(this.#n);
      this.dispatchEvent(new Event(what === 'open' ? 'open' : 'error'));
    }
  }

  #own() {
    let url = this.#url;
    if (this.#mark && this.#mark[0] !== '~') {
      const at = new URL(url), ids = /^(lastEventI[dD]|last_event_id|Last-Event-ID)=/;
      const query = at.search.slice(1).split('&').filter(p => p && !ids.test(p));
      at.search = [...query, 'lastEventId=' + encodeURIComponent(this.#id)].join('&');
      url = at.href;
    }
    this.#native = new Native(url, {withCredentials: this.#cred});
    for (const type of ['open', 'error']) {
      this.#native.addEventListener(type, e => e.data === undefined && this.dispatchEvent(new Event(type)));
    }
    for (const type of this.#types) this.#pass(type);
  }

  #pass(type) {
    this.#native.addEventListener(type, e => {
      if (e.data !== undefined) this.dispatchEvent(new MessageEvent(type, {data: e.data, lastEventId: e.lastEventId, origin: e.origin}));
    });
  }
}

for (const type of ['open', 'message', 'error']) {
  const handlers = new WeakMap();
  Object.defineProperty(EventSource.prototype, 'on' + type, {
    enumerable: true,
    configurable: true,
    get() {
      return handlers.get(this)?.f ?? null;
    },
    set(f) {
      const h = handlers.get(this) ?? {handleEvent: e => h.f.call?.(this, e)};
      handlers.set(this, h);
      h.f = Object(f) === f ? f : null;
      // What replaces a handler has its place among the listeners.
      h.f ? this.addEventListener(type, h) : this.removeEventListener(type, h);
    },
  });
}
['CONNECTING', 'OPEN', 'CLOSED'].forEach((state, value) => {
  for (const has of [EventSource, EventSource.prototype]) Object.defineProperty(has, state, {value, enumerable: true});
});
