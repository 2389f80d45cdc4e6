// Serves the fixtures: `server.mjs stdio`, or `server.mjs http` with PORT in the environment, in
// both eras: legacy with sessions and resumable streams, modern without any. `server.mjs lax` is a
// server that validates none of the headers of 2026-07-28: it overwrites them with what the body
// says before the SDK looks.

import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import {
  createMcpHandler,
  isInitializeRequest,
  isLegacyRequest,
} from '@modelcontextprotocol/server'
import {
  NodeStreamableHTTPServerTransport,
  localhostHostValidation,
  localhostOriginValidation,
  toNodeHandler,
  toWebRequest,
} from '@modelcontextprotocol/node'
import { serveStdio } from '@modelcontextprotocol/server/stdio'
import { fixtureServer } from './fixtures.mjs'

const BODY_BYTES_MAX = 1 << 20
const PATH = '/mcp'
const RETRY_MS = 100

/** Keeps every event of a session, so that a client that comes back misses none. */
class Events {
  #kept = []

  async storeEvent(stream, message) {
    this.#kept.push({ stream, message })
    return `${stream}_${this.#kept.length}`
  }

  async getStreamIdForEventId(id) {
    return this.#kept[this.#index(id)]?.stream
  }

  async replayEventsAfter(id, { send }) {
    const last = this.#index(id)
    const stream = this.#kept[last]?.stream
    for (let n = last + 1; n < this.#kept.length; n += 1) {
      const { message } = this.#kept[n]
      if (this.#kept[n].stream === stream && Object.keys(message).length) await send(`${stream}_${n + 1}`, message)
    }
    return stream
  }

  #index(id) {
    return Number(id.slice(id.lastIndexOf('_') + 1)) - 1
  }
}

async function readBody(request) {
  const chunks = []
  let length = 0
  for await (const chunk of request) {
    length += chunk.length
    if (length > BODY_BYTES_MAX) throw new Error('body too large')
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function parsed(body) {
  try {
    return JSON.parse(body)
  } catch {
    return undefined
  }
}

const NAMED_BY = { 'tools/call': 'name', 'prompts/get': 'name', 'resources/read': 'uri' }

/** Headers as they would be, had the client derived them from the body. */
function overwriteHeaders(request, message) {
  const version = message?.params?._meta?.['io.modelcontextprotocol/protocolVersion']
  if (version === undefined) return
  const set = (name, value) => {
    request.headers[name] = value
    for (let n = request.rawHeaders.length - 2; n >= 0; n -= 2) {
      if (request.rawHeaders[n].toLowerCase() === name) request.rawHeaders.splice(n, 2)
    }
    request.rawHeaders.push(name, value)
  }
  set('mcp-protocol-version', version)
  set('mcp-method', message.method)
  const name = message.params[NAMED_BY[message.method]]
  if (name !== undefined) set('mcp-name', name)
  const region = message.params.arguments?.region
  if (region !== undefined) set('mcp-param-region', `=?base64?${Buffer.from(region).toString('base64')}?=`)
}

function sessionServer() {
  const sessions = new Map()
  const open = async () => {
    const server = fixtureServer(() => {})
    const transport = new NodeStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      eventStore: new Events(),
      retryInterval: RETRY_MS,
      onsessioninitialized: (id) => sessions.set(id, transport),
      onsessionclosed: (id) => sessions.delete(id),
    })
    await server.connect(transport)
    return transport
  }
  return async (request, response, message) => {
    const id = request.headers['mcp-session-id']
    const fresh = id === undefined && message !== undefined && isInitializeRequest(message)
    const transport = fresh ? await open() : sessions.get(id)
    if (transport) return transport.handleRequest(request, response, message)
    const error = { code: -32000, message: id ? 'Session not found' : 'A session id is required' }
    response.writeHead(id ? 404 : 400, { 'content-type': 'application/json' })
    response.end(JSON.stringify({ jsonrpc: '2.0', id: null, error }))
  }
}

function serveHttp(port, lax) {
  const modern = createMcpHandler(
    () => fixtureServer((kind) => (kind === 'tool' ? modern.notify.toolsChanged() : modern.notify.promptsChanged())),
    { legacy: 'reject' },
  )
  const handleModern = toNodeHandler(modern)
  const handleLegacy = sessionServer()
  const hostIsLocal = localhostHostValidation()
  const originIsLocal = localhostOriginValidation()
  createServer(async (request, response) => {
    try {
      if (!hostIsLocal(request, response) || !originIsLocal(request, response)) return
      if (request.url !== PATH) return void response.writeHead(404).end()
      const message = request.method === 'POST' ? parsed(await readBody(request)) : undefined
      if (lax) overwriteHeaders(request, message)
      const legacy = await isLegacyRequest(await toWebRequest(request, message), message)
      await (legacy ? handleLegacy : handleModern)(request, response, message)
    } catch (error) {
      console.error(error)
      if (!response.headersSent) response.writeHead(500)
      response.end()
    }
  }).listen(port, '127.0.0.1')
}

const [mode] = process.argv.slice(2)
if (mode === 'stdio') {
  serveStdio(() => {
    const server = fixtureServer((kind) => (kind === 'tool' ? server.sendToolListChanged() : server.sendPromptListChanged()))
    return server
  })
} else {
  serveHttp(Number(process.env.PORT), mode === 'lax')
}
