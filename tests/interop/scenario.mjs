// Plays a scenario through one TypeScript client and prints what that client saw, as JSON lines.
// The clients differ in how they connect and ask; everything else is here, so that both play the
// same scenario. Nothing is normalised here: see normalise.py.

import { readFileSync } from 'node:fs'

const SETTLE_MS_MAX = 10_000

/** `{"$repeat": [text, times]}` stands for a text too long to write down. */
function expanded (value) {
  if (Array.isArray(value)) return value.map(expanded)
  if (value === null || typeof value !== 'object') return value
  if (Array.isArray(value.$repeat)) return value.$repeat[0].repeat(value.$repeat[1])
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, expanded(inner)]))
}

function print (line) {
  process.stdout.write(`${JSON.stringify(line)}\n`)
}

function fault (error) {
  const { code, data } = error
  return { error: { name: error.name, code, message: error.message, data } }
}

/** What to run and against what: `<scenario> http <url>` or `<scenario> stdio <command>...`. */
export function invocation () {
  const [file, kind, ...rest] = process.argv.slice(2)
  return { scenario: JSON.parse(readFileSync(file, 'utf8')), kind, rest }
}

/** What the server asked of this client; each answer is the scenario's. */
export class Asked {
  constructor (scenario) {
    this.scenario = scenario
    this.requests = []
    this.waiting = new Map()
  }

  answer (method, params, result) {
    this.requests.push({ method, params })
    this.waiting.get(method)?.()
    return result
  }

  handlers () {
    const { sampling, elicitation, roots } = this.scenario
    return {
      'sampling/createMessage': (params) => this.answer('sampling/createMessage', params, sampling),
      'elicitation/create': (params) => this.answer('elicitation/create', params, elicitation ?? { action: 'accept' }),
      'roots/list': (params) => this.answer('roots/list', params, { roots })
    }
  }

  /** The requests since the last time, without the one that comes when it pleases. */
  take () {
    const taken = this.requests.filter(({ method }) => method !== this.scenario.await)
    this.requests = []
    return taken
  }

  /** Waits for the request that a server sends by itself some time after it was greeted. */
  async settled () {
    const method = this.scenario.await
    if (method === undefined || this.requests.some((request) => request.method === method)) return
    await new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error(`${method} never came`)), SETTLE_MS_MAX)
      this.waiting.set(method, () => { clearTimeout(late); resolve() })
    })
  }
}

/**
 * Plays the steps. `ask(method, params, options)` answers with a result or throws; `greeting` is
 * what the server said of itself.
 */
export async function play (scenario, asked, greeting, ask) {
  print({ greeting })
  await asked.settled()
  print({ settled: scenario.await ?? null, asked: asked.requests.filter(({ method }) => method === scenario.await) })
  asked.take()
  for (const step of scenario.steps) {
    print({ step: step.name, ...(await one(step, ask)), asked: asked.take() })
  }
}

async function one (step, ask) {
  const progress = []
  const options = {}
  if (step.together) {
    const all = step.together.map((part) => ask(part.method, expanded(part.params), {}))
    return { results: (await Promise.allSettled(all)).map(({ value, reason }) => value ?? fault(reason)) }
  }
  if (step.progress) options.onprogress = (notice) => progress.push(notice)
  if (step.timeout) Object.assign(options, { timeout: step.timeout, resetTimeoutOnProgress: step.reset ?? false })
  if (step.cancel) {
    const cancel = new AbortController()
    options.signal = cancel.signal
    options.onprogress = () => cancel.abort('interop is done with it')
  }
  try {
    const result = await ask(step.method, expanded(step.params), options)
    return step.progress ? { result, progress } : { result }
  } catch (error) {
    return fault(error)
  }
}
