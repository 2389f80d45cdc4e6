// The official TypeScript client, 2.x. Without ERA it probes for the modern era and falls back, as
// its `auto` mode does; ERA=legacy or a date pins it.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import { Asked, invocation, play } from './scenario.mjs'

const { scenario, kind, rest } = invocation()
const era = process.env.ERA ?? 'auto'
const asked = new Asked(scenario)
const peer = scenario.await !== undefined
const client = new Client(
  { name: 'interop-v2', version: '1' },
  {
    capabilities: peer ? { sampling: {}, elicitation: {}, roots: {} } : scenario.opens ? { elicitation: { url: {} } } : {},
    versionNegotiation: { mode: ['auto', 'legacy'].includes(era) ? era : { pin: era } }
  }
)
if (peer) {
  for (const [method, handler] of Object.entries(asked.handlers())) {
    client.setRequestHandler(method, ({ params }) => handler(params))
  }
}
if (scenario.opens) client.setRequestHandler('elicitation/create', ({ params }) => asked.handlers()['elicitation/create'](params))
const transport = kind === 'http'
  ? new StreamableHTTPClientTransport(new URL(rest[0]))
  : new StdioClientTransport({ command: rest[0], args: rest.slice(1), stderr: 'ignore' })
await client.connect(transport)

// Answers must come from the server, not from the client's own cache.
const fresh = { cacheMode: 'bypass' }
const ways = {
  ping: (_params, options) => client.ping(options),
  'tools/list': (params, options) => client.listTools(params, { ...options, ...fresh }),
  'tools/call': (params, options) => client.callTool(params, options),
  'resources/list': (params, options) => client.listResources(params, { ...options, ...fresh }),
  'resources/templates/list': (params, options) => client.listResourceTemplates(params, { ...options, ...fresh }),
  'resources/read': (params, options) => client.readResource(params, { ...options, ...fresh }),
  'resources/subscribe': (params, options) => client.subscribeResource(params, options),
  'resources/unsubscribe': (params, options) => client.unsubscribeResource(params, options),
  'prompts/list': (params, options) => client.listPrompts(params, { ...options, ...fresh }),
  'prompts/get': (params, options) => client.getPrompt(params, options),
  'completion/complete': (params, options) => client.complete(params, options),
  'logging/setLevel': (params, options) => client.setLoggingLevel(params.level, options)
}
const anything = {
  '~standard': { version: 1, vendor: 'interop', validate: (value) => ({ value }) }
}
const ask = (method, params, options) => (
  ways[method]?.(params, options) ?? client.request({ method, params }, anything, options)
)

await play(scenario, asked, {
  server: client.getServerVersion(),
  capabilities: client.getServerCapabilities(),
  instructions: client.getInstructions(),
  protocol: client.getNegotiatedProtocolVersion(),
  era: client.getProtocolEra(),
  discovered: client.getDiscoverResult() ?? null
}, ask)
if (kind === 'http') await transport.terminateSession()
await client.close()
