// An EventSource whose instances share one connection, over all tabs: sse_multiplex.
// The connection is in a SharedWorker, which runs this module too; else in the tab that has a
// lock, to which the others speak over a BroadcastChannel; else in each tab.

const base = new URL('.', import.meta.url);
const name = 'sse_multiplex ' + base;
const Native = globalThis.EventSource;
const most = 32; // streams of a connection
const later = (f, ms) => setTimeout(f, ms);
const escaped = type => (/^(~|(open|gap|end|error)$)/.test(type) ? '~' : '') + type;

// positions returns the mark of each alias in an id.
const positions = id => new Map(id ? id.split(',').map(p => p.split(':')) : []);

// A Hub has the connections. Members are instances: key, url, mark (where it is), types, send.
class Hub {
  members = new Map();
  lines = [];

  join(m) {
    this.members.set(m.key, m);
    this.plan(20);
  }

  leave(match) {
    for (const m of [...this.members.values()].filter(match)) {
      this.members.delete(m.key);
      m.line?.members.get(m.alias)?.delete(m);
    }
    if (!this.members.size) this.connect();
    else this.plan(5000);
  }

  listen(key, type) {
    const m = this.members.get(key);
    if (!m) return;
    m.types.add(type);
    if (m.line) this.hear(m.line, m.alias, type);
  }

  // plan makes tabs that open together cause one connection.
  plan(ms) {
    const at = Date.now() + ms;
    if (at >= this.at) return;
    clearTimeout(this.timer);
    this.at = at;
    this.timer = later(() => this.connect(), ms);
  }

  // connect replaces the connections by those for the members of now. Who is at the same place
  // of the same stream shares that.
  connect() {
    clearTimeout(this.timer);
    this.at = undefined;
    const streams = new Map();
    for (const m of this.members.values()) {
      const of = m.url + ' ' + m.cred + ' ' + m.mark;
      streams.has(of) ? streams.get(of).push(m) : streams.set(of, [m]);
    }
    const all = [true, false].flatMap(cred => {
      const some = [...streams.values()].filter(([m]) => m.cred === cred);
      return Array.from({length: Math.ceil(some.length / most)}, (_, i) => some.slice(i * most, (i + 1) * most));
    });
    const old = this.lines;
    // What has an id is told again from there; what has none goes on until it is replaced.
    for (const line of old) line.replaced = true;
    this.lines = all.map(some => this.open(some));
    later(() => old.forEach(line => line.source.close()), this.members.size && 3000);
  }

  open(some) {
    const line = {members: new Map(), heard: new Set()};
    const query = [], id = [];
    some.forEach((members, i) => {
      const alias = i.toString(36), {url, mark} = members[0];
      query.push(alias + '=' + encodeURIComponent(url));
      if (mark) id.push(alias + ':' + mark);
      line.members.set(alias, new Set(members));
    });
    if (id.length) query.push('lastEventId=' + encodeURIComponent(id));
    line.source = new Native(base + '?' + query.join('&'), {withCredentials: some[0][0].cred});
    for (const [alias, members] of line.members) {
      for (const type of ['open', 'gap', 'end', 'error']) {
        line.source.addEventListener(alias + '/' + type, e => this.told(line, alias, type, e));
      }
      for (const m of members) {
        m.was = m.line;
        m.waits = true;
        m.next = [line, alias];
        if (m.mark || !m.was) this.move(m);
        for (const type of m.types) this.hear(line, alias, type);
      }
    }
    line.source.onerror = () => {
      const what = line.source.readyState === 2 ? 'native' : 'end';
      if (!line.replaced) this.each(line, m => (m.next[0] === line && this.move(m), this.say(m, what)));
    };
    return line;
  }

  // move makes a member hear its new line alone.
  move(m) {
    [m.line, m.alias] = m.next;
  }

  each(line, f) {
    for (const members of line.members.values()) for (const m of [...members]) f(m);
  }

  say(m, what, e) {
    if (what === 'end') {
      if (m.waits) return;
      m.waits = true;
    } else if (what !== 'open') {
      this.members.delete(m.key);
    }
    m.send({n: m.n, what, ...e});
  }

  // mark takes down where the streams are.
  mark(line, id) {
    const at = positions(id);
    this.each(line, m => {
      if (m.line === line) m.mark = at.get(m.alias) ?? '';
    });
  }

  told(line, alias, type, e) {
    for (const m of line.members.get(alias)) {
      if (type === 'open' && m.next[0] === line) this.move(m);
      if (m.line !== line) continue;
      if (type === 'open') {
        if (m.waits) m.was && m.isOpen || this.say(m, 'open');
        m.waits = false;
        m.isOpen = true;
      } else if (type === 'end') {
        m.isOpen = false;
        this.say(m, 'end');
      } else if (type === 'error') {
        const {status} = JSON.parse(e.data);
        this.say(m, status > 299 && status < 400 || [400, 413, 431].includes(status) ? 'native' : 'close');
      }
    }
    this.mark(line, e.lastEventId);
  }

  hear(line, alias, type) {
    const on = alias + '/' + escaped(type);
    if (line.heard.has(on)) return;
    line.heard.add(on);
    line.source.addEventListener(on, e => {
      this.mark(line, e.lastEventId);
      for (const m of line.members.get(alias)) {
        if (m.line === line) m.send({n: m.n, type, data: e.data, mark: m.mark});
      }
    });
  }

  // take does what a tab says.
  take(tab, said, send) {
    for (const j of said.join ?? []) {
      const key = tab + ' ' + j.n;
      if (!this.members.has(key)) this.join({...j, key, tab, send, types: new Set(j.types)});
    }
    for (const n of said.leave ?? []) this.leave(m => m.key === tab + ' ' + n);
    if (said.listen) this.listen(tab + ' ' + said.listen[0], said.listen[1]);
    if (said.bye) this.leave(m => m.tab === tab);
  }

  // watch forgets a tab that has died: it held a lock of its name.
  watch(tab) {
    globalThis.navigator?.locks?.request(name + tab, () => this.leave(m => m.tab === tab));
  }
}

if (globalThis.SharedWorkerGlobalScope) {
  const hub = new Hub();
  onconnect = ({ports: [port]}) => {
    const tab = crypto.randomUUID();
    port.onmessage = ({data}) => {
      if (data.tab) hub.watch(data.tab);
      hub.take(data.tab ?? tab, data, said => port.postMessage(said));
    };
  };
}

// The tab: its instances, and how it reaches the hub.
const mine = new Map();
let count = 0, tell, hang = [], tab;

const joins = () => [...mine.values()].map(s => s.asJoin());

const hear = said => mine.get(said.n)?.hear(said);

const onLock = (of, f) => {
  const stop = new AbortController(), {locks} = navigator;
  locks.request(of, {signal: stop.signal}, () => (f?.(), new Promise(free => hang.push(free)))).catch(() => {});
  hang.push(() => stop.abort());
};

// reach finds the hub, and tells it what the tab has.
function reach(worker = globalThis.SharedWorker) {
  if (tell) return;
  tab = Math.random().toString(36).slice(2);
  const lockable = navigator.locks && globalThis.BroadcastChannel;
  if (navigator.locks) onLock(name + tab);
  if (worker) {
    try {
      const w = new worker(import.meta.url, {type: 'module', name});
      w.onerror = () => (leave(), reach(null));
      w.port.onmessage = ({data}) => hear(data);
      tell = said => w.port.postMessage({tab, ...said});
      hang.push(() => (w.onerror = null, w.port.close()));
    } catch {
      return reach(null);
    }
  } else if (lockable) {
    const channel = new BroadcastChannel(name), self = tab;
    let hub;
    const watched = new Set();
    const take = (from, said) => {
      if (!watched.has(from) && from !== self) watched.add(from), hub.watch(from);
      hub.take(from, said, s => (from === self ? hear(s) : channel.postMessage({to: from, s})));
    };
    channel.onmessage = ({data}) => {
      if (data.to === self) hear(data.s);
      else if (data.hello) tell({join: joins()});
      else if (hub && data.from) take(data.from, data.s);
    };
    tell = said => (hub ? take(self, said) : channel.postMessage({from: self, s: said}));
    onLock(name, () => {
      hub = new Hub();
      channel.postMessage({hello: true});
      tell({join: joins()});
    });
    hang.push(() => (hub?.leave(() => true), channel.close()));
  } else {
    const hub = new Hub();
    tell = said => hub.take(tab, said, hear);
    hang.push(() => hub.leave(() => true));
  }
  if (mine.size) tell({join: joins()});
}

// leave lets go of the hub: another tab has it then, and this one can be kept by the browser.
function leave() {
  tell?.({bye: true});
  tell = null;
  for (const f of hang.splice(0)) f();
}

function resume() {
  if (tell || !mine.size) return;
  for (const s of mine.values()) s.hear({what: 'end'});
  reach();
}

if (globalThis.document) {
  addEventListener('pagehide', leave);
  addEventListener('pageshow', e => e.persisted && resume());
  document.addEventListener('freeze', leave);
  document.addEventListener('resume', resume);
}

const on = type => ({
  get() {
    return this['#' + type]?.f ?? null;
  },
  set(f) {
    const has = this['#' + type] ??= (this.addEventListener(type, e => this['#' + type].f?.call(this, e)), {});
    has.f = typeof f === 'function' ? f : null;
  },
});

export class EventSource extends EventTarget {
  #url; #cred; #state = 0; #n; #mark = ''; #id = ''; #types = new Set(); #native;

  constructor(url, init) {
    super();
    if (!arguments.length) throw new TypeError('EventSource: 1 argument required, but only 0 present.');
    let at;
    try {
      at = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    } catch {
      throw new DOMException(`EventSource: cannot parse ${url}`, 'SyntaxError');
    }
    this.#url = at.href;
    this.#cred = !!init?.withCredentials;
    this.#n = ++count;
    if (at.origin !== base.origin || /%2f|%5c/i.test(at.pathname) || !globalThis.document) return this.#own();
    mine.set(this.#n, this);
    tell ? tell({join: [this.asJoin()]}) : reach();
  }

  get url() { return this.#url; }
  get withCredentials() { return this.#cred; }
  get readyState() { return this.#native?.readyState ?? this.#state; }

  close() {
    this.#state = 2;
    this.#native?.close();
    if (mine.delete(this.#n)) tell?.({leave: [this.#n]});
  }

  addEventListener(type, ...rest) {
    super.addEventListener(type, ...rest);
    if (this.#types.has(type += '') || type === 'open') return;
    this.#types.add(type);
    if (this.#native) this.#pass(type);
    else if (this.#state < 2) tell?.({listen: [this.#n, type]});
  }

  asJoin() {
    const {pathname, search} = new URL(this.#url);
    return {n: this.#n, url: pathname + search, cred: this.#cred, mark: this.#mark, types: [...this.#types]};
  }

  // hear dispatches what the hub says.
  hear({what, type, data, mark}) {
    if (type) {
      this.#mark = mark;
      if (mark[0] !== '~') this.#id = decodeURIComponent(mark);
      this.dispatchEvent(new MessageEvent(type, {data, lastEventId: this.#id, origin: base.origin}));
    } else if (what === 'native') {
      mine.delete(this.#n);
      this.#own();
    } else {
      this.#state = {open: 1, end: 0, close: 2}[what];
      if (what === 'close') mine.delete(this.#n);
      this.dispatchEvent(new Event(what === 'open' ? 'open' : 'error'));
    }
  }

  // own makes the instance have a connection of its own.
  #own() {
    this.#native = new Native(this.#url, {withCredentials: this.#cred});
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
  Object.defineProperty(EventSource.prototype, 'on' + type, {...on(type), enumerable: true, configurable: true});
}
['CONNECTING', 'OPEN', 'CLOSED'].forEach((state, value) => {
  for (const has of [EventSource, EventSource.prototype]) Object.defineProperty(has, state, {value, enumerable: true});
});

export default EventSource;
