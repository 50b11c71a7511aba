// How an application uses each library. A library is loaded when it is asked for,
// for some of them need globals that change others. It makes a function that takes
// the URL, the last id and headers, what to do with events and with the end, and
// returns how to close.
import { createRequire } from 'node:module'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const require = createRequire(import.meta.url)

// The types of the origin's events.
const types = ['message', 'tick']

// listen is for those with the interface of EventSource.
function listen(source, see, ended) {
  for (const type of types) {
    source.addEventListener(type, (e) => see({ id: e.lastEventId, type: e.type, data: e.data }))
  }
  source.addEventListener('error', () => {
    if (source.readyState === 2) ended('it was closed')
  })
  return () => source.close()
}

// withParameter is for those that let an application set an id by the URL alone.
function withParameter(url, id) {
  const result = new URL(url)
  if (id) result.searchParams.set('lastEventId', id)
  return result.href
}

// fetching is for those that decode a response: read gets it, and says why it is over.
// Their own requests accept JSON.
function fetching(read, accept) {
  return ({ url, id, headers }, see, ended) => {
    const controller = new AbortController()
    const resume = id ? { 'Last-Event-ID': id } : {}
    fetch(url, { headers: { accept, ...resume, ...headers }, signal: controller.signal })
      .then((response) => read(response, see, controller))
      .then(() => ended('end of stream'), (error) => {
        // A lost connection is a TypeError. All else is something that the library
        // makes of the stream, which an application sees.
        if (!(error instanceof TypeError) && error.name !== 'AbortError') {
          see({ type: 'exception', data: String(error) })
        }
        ended(error)
      })
    return () => controller.abort()
  }
}

// modern is for eventsource since version 3, which takes a fetch of the application's.
const modern = (name) => async () => {
  const { EventSource } = await import(name)
  return ({ url, id, headers }, see, ended) => listen(new EventSource(url, {
    fetch: (url, init) => fetch(url, {
      ...init, headers: { ...(id ? { 'Last-Event-ID': id } : {}), ...headers, ...init.headers },
    }),
  }), see, ended)
}

// An XMLHttpRequest as far as these libraries use it, with the header of browsers.
class Request extends EventTarget {
  static HEADERS_RECEIVED = 2
  readyState = 0
  status = 0
  statusText = ''
  responseText = ''
  withCredentials = false
  onload = null
  onerror = null
  onabort = null
  onprogress = null
  onreadystatechange = null
  #url
  #headers = { accept: '*/*', 'user-agent': 'Mozilla/5.0' }
  #controller
  #response

  open(method, url) {
    this.#url = url
    this.#controller = new AbortController()
    this.responseText = ''
    this.#turn(1)
  }

  setRequestHeader(name, value) { this.#headers[name.toLowerCase()] = value }

  getResponseHeader(name) { return this.#response.headers.get(name) }

  getAllResponseHeaders() {
    return [...this.#response.headers].map(([name, value]) => `${name}: ${value}\r\n`).join('')
  }

  async send() {
    try {
      this.#response = await fetch(this.#url, { headers: this.#headers, signal: this.#controller.signal })
      this.status = this.#response.status
      this.statusText = this.#response.statusText
      this.#turn(2)
      const decoder = new TextDecoder()
      for await (const chunk of this.#response.body) {
        this.responseText += decoder.decode(chunk, { stream: true })
        if (this.readyState !== 3) this.#turn(3)
        this.#fire('progress')
      }
      this.#turn(4)
      this.#fire('load')
    } catch {
      this.#turn(4)
      this.#fire(this.#controller.signal.aborted ? 'abort' : 'error')
    }
  }

  abort() { this.#controller.abort() }

  #turn(state) {
    this.readyState = state
    this.#fire('readystatechange')
  }

  #fire(type) {
    const event = new Event(type)
    this['on' + type]?.(event)
    this.dispatchEvent(event)
  }
}

// follow is an application's script, in a page or in a worker.
function follow(url, types, tell) {
  const source = new EventSource(url)
  for (const type of types) {
    source.addEventListener(type, (e) => tell({ event: { id: e.lastEventId, type: e.type, data: e.data } }))
  }
  source.addEventListener('error', () => {
    if (source.readyState === EventSource.CLOSED) tell({ end: 'it was closed' })
  })
}

// inBrowser is for the EventSource that a browser has. An application is a page in a tab
// of its own, from the address that it connects to.
const inBrowser = (browser, args) => async (executablePath) => {
  const { default: puppeteer } = await import('puppeteer-core')
  const home = fileURLToPath(new URL(`home-${browser}`, import.meta.url))
  const running = await puppeteer.launch({
    browser,
    executablePath,
    protocol: 'webDriverBiDi',
    userDataDir: `${home}/profile`,
    env: { ...process.env, HOME: home },
    args,
  })
  let leaving = false
  running.on('disconnected', () => {
    if (!leaving) throw new Error(`${browser} has gone`)
  })

  const load = async (page, { url, id, worker }, see, ended) => {
    await page.exposeFunction('tellTest', ({ event, end }) => event ? see(event) : ended(end))
    await page.goto(new URL('/', url).href)
    const script = (tell) => `(${follow})(${JSON.stringify(withParameter(url, id))}, ${JSON.stringify(types)}, ${tell})`
    await page.evaluate((script, inWorker) => {
      // One call after the other, for each is an exchange of messages.
      let told = Promise.resolve()
      globalThis.tell = (what) => { told = told.then(() => globalThis.tellTest(what)) }
      if (!inWorker) {
        globalThis.eval(script)
        return
      }
      globalThis.worker = new Worker(URL.createObjectURL(new Blob([script])))
      globalThis.worker.onmessage = (e) => globalThis.tell(e.data)
    }, script(worker ? 'postMessage' : 'tell'), worker)
  }
  const connect = (to, see, ended) => {
    const page = running.newPage()
    page.then((page) => load(page, to, see, ended)).catch(ended)
    return () => page.then((page) => page.close()).catch(() => {}) // it may be gone already
  }
  // If it does not close, it is killed when this process ends.
  connect.quit = () => {
    leaving = true
    return Promise.race([running.close(), setTimeout(5000)])
  }
  return connect
}

export default {
  'Chromium': inBrowser('chrome', [
    '--no-sandbox', // it refuses to be root in one
    '--disable-gpu',
    '--disable-quic',
    '--disable-component-update',
  ]),

  'Firefox': inBrowser('firefox', []),

  'eventsource 2': async () => {
    const EventSource = require('eventsource-2')
    return ({ url, id, headers }, see, ended) => {
      const resume = id ? { 'Last-Event-ID': id } : {}
      return listen(new EventSource(url, { headers: { ...resume, ...headers } }), see, ended)
    }
  },

  'eventsource 3': modern('eventsource-3'),
  'eventsource 4': modern('eventsource-4'),
  'eventsource 5': modern('eventsource-5'),

  'eventsource-client': async () => {
    const { createEventSource } = await import('eventsource-client')
    return ({ url, id, headers }, see) => {
      const source = createEventSource({
        url,
        headers,
        initialLastEventId: id || undefined,
        onMessage: ({ id, event, data }) => see({ id, type: event ?? 'message', data }),
      })
      return () => source.close()
    }
  },

  'eventsource-parser': async () => {
    const { createParser } = await import('eventsource-parser')
    return fetching(async (response, see) => {
      const parser = createParser({
        onEvent: ({ id, event, data }) => see({ id, type: event ?? 'message', data }),
      })
      const decoder = new TextDecoder()
      for await (const chunk of response.body) parser.feed(decoder.decode(chunk, { stream: true }))
    }, 'text/event-stream')
  },

  'fetch-event-source': async () => {
    globalThis.window = globalThis
    globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} }
    const { fetchEventSource } = require('@microsoft/fetch-event-source')
    return ({ url, id, headers }, see, ended) => {
      const controller = new AbortController()
      fetchEventSource(url, {
        signal: controller.signal,
        headers: { ...(id ? { 'last-event-id': id } : {}), ...headers },
        onmessage: ({ id, event, data }) => see({ id, type: event || 'message', data }),
        onclose() { throw new Error('come back') }, // as its documentation says
      }).catch(ended)
      return () => controller.abort()
    }
  },

  'sse.js': async () => {
    globalThis.XMLHttpRequest = Request
    const { SSE } = await import('sse.js')
    return ({ url, id, headers }, see) => {
      const source = new SSE(url, { headers, autoReconnect: true, start: false })
      source.lastEventId = id
      for (const type of types) {
        source.addEventListener(type, (e) => see({ id: e.lastEventId, type: e.type, data: e.data }))
      }
      source.stream()
      return () => source.close()
    }
  },

  'event-source-polyfill': async () => {
    const { EventSourcePolyfill } = require('event-source-polyfill')
    return ({ url, id, headers }, see, ended) =>
      listen(new EventSourcePolyfill(withParameter(url, id), { headers }), see, ended)
  },

  'event-source-polyfill, XMLHttpRequest': async () => {
    globalThis.XMLHttpRequest = Request
    const { fetch } = globalThis
    globalThis.fetch = undefined // it is asked for when the library is loaded
    const { EventSourcePolyfill } = require('event-source-polyfill')
    globalThis.fetch = fetch
    return ({ url, id, headers }, see, ended) =>
      listen(new EventSourcePolyfill(withParameter(url, id), { headers }), see, ended)
  },

  'reconnecting-eventsource': async () => {
    globalThis.EventSource = (await import('eventsource-3')).EventSource
    const { default: ReconnectingEventSource } = require('reconnecting-eventsource')
    return ({ url, id }, see, ended) =>
      listen(new ReconnectingEventSource(url, id ? { lastEventId: id } : {}), see, ended)
  },

  'undici EventSource': async () => {
    const { EventSource } = await import('undici')
    return ({ url, id }, see, ended) => listen(new EventSource(withParameter(url, id)), see, ended)
  },

  'openai Stream': async () => {
    const { Stream } = await import('openai/streaming')
    return fetching(async (response, see, controller) => {
      for await (const { event, data } of Stream.fromSSEResponse(response, controller, undefined, true)) {
        see({ type: event ?? 'message', data: JSON.stringify(data) })
      }
    }, 'application/json')
  },

  // It skips events without a type.
  '@anthropic-ai/sdk Stream': async () => {
    const { Stream } = await import('@anthropic-ai/sdk/streaming')
    return fetching(async (response, see, controller) => {
      for await (const data of Stream.fromSSEResponse(response, controller)) {
        see({ data: JSON.stringify(data) })
      }
    }, 'application/json')
  },

  '@anthropic-ai/sdk rawEvents': async () => {
    const { Stream } = await import('@anthropic-ai/sdk/streaming')
    return fetching(async (response, see) => {
      for await (const { event, data } of Stream.rawEvents(response)) {
        see({ type: event ?? 'message', data })
      }
    }, 'application/json')
  },
}
