// Looks at one page of the bus in Chromium: at every width, light and dark, with and without scripts, every other host
// cut off. Reads a job from standard input and prints what it saw as JSON; it judges nothing.
//
//   {"url", "signatures": [one for each time that the page is opened, or none], "chromium", "pictures": a folder or null}

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { chromium } from 'playwright-core'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22a', 'wcag22aa']
// Milliseconds for what a browser does in a few, on a machine that is busy with other things.
const PATIENCE = 60_000
const LOOKS = [1280, 320].flatMap((width) => ['light', 'dark'].map((scheme) => ({ width, scheme })))
const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
]

const job = JSON.parse(readFileSync(0, 'utf8'))
const origin = new URL(job.url).origin

async function look(browser, { width, scheme }) {
  const silent = await open(browser, { width, scheme, javaScriptEnabled: false })
  const picture = `${job.pictures}/${width}-${scheme}.png`
  if (job.pictures) await silent.page.screenshot({ path: picture, fullPage: true })
  const text = await silent.page.innerText('body')
  const shown = await silent.page.evaluate(() => ({
    background: getComputedStyle(document.body).backgroundColor,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  }))
  // The keyboard goes the same way in the dark.
  const keys = scheme === 'light' ? await keyboard(silent.page) : null
  await silent.context.close()

  const lively = await open(browser, { width, scheme, javaScriptEnabled: true })
  const textWithScripts = await lively.page.innerText('body')
  const checked = await axe(lively.page)
  await lively.context.close()

  return {
    width,
    scheme,
    statuses: [silent.status, lively.status],
    asked: [...silent.asked, ...lively.asked],
    said: [...silent.said, ...lively.said],
    text,
    textWithScripts,
    ...shown,
    keys,
    ...checked,
  }
}

async function open(browser, { width, scheme, javaScriptEnabled }) {
  const context = await browser.newContext({ javaScriptEnabled, viewport: { width, height: 900 }, colorScheme: scheme })
  context.setDefaultTimeout(PATIENCE)
  const asked = []
  const said = []
  await context.route('**/*', (route) => {
    const request = route.request()
    asked.push(request.url())
    if (new URL(request.url()).origin !== origin) return route.abort()
    const signature = job.signatures.shift()
    return route.continue({ headers: { ...request.headers(), ...(signature ? { 'GSB-Signature': signature } : {}) } })
  })
  const page = await context.newPage()
  page.on('console', (message) => said.push(message.text()))
  page.on('pageerror', (error) => said.push(String(error)))
  const answer = await page.goto(job.url, { waitUntil: 'load' })
  return { context, page, asked, said, status: answer.status() }
}

// Where Tab leads from the top of the page, until it leaves it; and which of these places do not show that they have it.
async function keyboard(page) {
  const links = await page.$$eval('a[href]', (all) => all.map((each) => each.getAttribute('href')))
  const tabbed = []
  const unseen = []
  for (let count = 0; count <= links.length; count++) {
    await page.keyboard.press('Tab')
    let place = await page.evaluate(focused)
    // The page scrolls to what has the focus only when it is painted next, so it is asked again for a while.
    const until = Date.now() + PATIENCE
    while (place && !place.inside && Date.now() < until) place = await page.evaluate(focused)
    if (place === null) break
    tabbed.push(place.href)
    if (!place.inside || !place.outlined) unseen.push(place.href)
  }
  return { links, tabbed, unseen }
}

function focused() {
  const here = document.activeElement
  if (!here || here === document.body) return null
  const box = here.getBoundingClientRect()
  const inside = box.width > 0 && box.left >= 0 && box.top >= 0 && box.bottom <= innerHeight && box.right <= innerWidth
  return { href: here.getAttribute('href'), inside, outlined: getComputedStyle(here).outlineStyle !== 'none' }
}

async function axe(page) {
  await page.evaluate(AXE)
  const found = await page.evaluate((tags) => window.axe.run(document, { runOnly: tags }), TAGS)
  const rows = (results) =>
    results.flatMap(({ id, help, nodes }) => nodes.map(({ html, failureSummary }) => ({ id, help, html, failureSummary })))
  return { violations: rows(found.violations), incomplete: rows(found.incomplete), passed: found.passes.map(({ id }) => id) }
}

const browser = await chromium.launch({ executablePath: job.chromium, args: FLAGS, headless: true, timeout: PATIENCE })
const seen = []
for (const each of LOOKS) seen.push(await look(browser, each))
await browser.close()
process.stdout.write(JSON.stringify(seen))
