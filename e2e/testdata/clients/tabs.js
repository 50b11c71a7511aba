// Tabs of one browser. Each line of the input asks for something, {"id", "open": url}, or of a
// tab by its number: {"id", "tab", "close"}, {"id", "tab", "go": url}, {"id", "tab", "back"},
// {"id", "tab", "evaluate": script}; in Chromium also {"id", "tab", "freeze": true or false},
// {"id", "tab", "crash"}, and {"id", "killWorkers"}, which tells how many there were. The answer
// is {"id", "result"} or {"id", "error"}.
import { createInterface } from 'node:readline'
import puppeteer from 'puppeteer-core'

const [browser, executablePath, home] = process.argv.slice(2)
const running = await puppeteer.launch({
  browser,
  executablePath,
  protocol: 'webDriverBiDi',
  acceptInsecureCerts: true,
  userDataDir: `${home}/profile`,
  env: { ...process.env, HOME: home },
  extraPrefsFirefox: { 'network.dns.localDomains': 'plain.test' },
  args: browser === 'chrome' ? ['--host-resolver-rules=MAP plain.test 127.0.0.1', '--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-component-update'] : [],
})
const tabs = []

async function killWorkers() {
  const session = await tabs[0].createCDPSession()
  const { targetInfos } = await session.send('Target.getTargets')
  const workers = targetInfos.filter(({ type }) => type === 'shared_worker')
  for (const { targetId } of workers) await session.send('Target.closeTarget', { targetId })
  return workers.length
}

async function answer({ open, tab, close, go, back, evaluate, freeze, crash, killWorkers: kill }) {
  if (open) {
    const page = await running.newPage()
    tabs.push(page)
    await page.goto(open)
    return tabs.indexOf(page)
  }
  if (kill) return killWorkers()
  const page = tabs[tab]
  if (freeze !== undefined) {
    const session = await page.createCDPSession()
    await session.send('Page.setWebLifecycleState', { state: freeze ? 'frozen' : 'active' })
  } else if (crash) {
    const session = await page.createCDPSession()
    session.send('Page.crash').catch(() => {}) // nobody is left to answer
  } else if (close) await page.close()
  else if (go) await page.goto(go)
  // A page that the browser has kept comes without being loaded, for which goBack would wait.
  else if (back) await page.evaluate('void setTimeout(() => history.back())')
  else return page.evaluate(evaluate)
}

createInterface({ input: process.stdin }).on('line', (line) => {
  const asked = JSON.parse(line)
  answer(asked).then((result = null) => ({ result }), (error) => ({ error: String(error) }))
    .then((told) => process.stdout.write(JSON.stringify({ id: asked.id, ...told }) + '\n'))
}).on('close', async () => {
  setTimeout(() => process.exit(), 5000)
  await running.close()
  process.exit()
})
