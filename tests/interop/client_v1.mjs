// The official TypeScript client, 1.x: legacy era.

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import {
  CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema, ResultSchema
} from '@modelcontextprotocol/sdk/types.js'
import { Asked, invocation, play } from './scenario.mjs'

const { scenario, kind, rest } = invocation()
const asked = new Asked(scenario)
const peer = scenario.await !== undefined
const client = new Client(
  { name: 'interop-v1', version: '1' },
  { capabilities: peer ? { sampling: {}, elicitation: {}, roots: {} } : {} }
)
if (peer) {
  const handlers = asked.handlers()
  const schemas = [CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema]
  for (const schema of schemas) {
    const method = schema.shape.method.value
    client.setRequestHandler(schema, ({ params }) => handlers[method](params))
  }
}
const transports = {
  http: () => new StreamableHTTPClientTransport(new URL(rest[0])),
  sse: () => new SSEClientTransport(new URL(rest[0])),
  stdio: () => new StdioClientTransport({ command: rest[0], args: rest.slice(1), stderr: 'ignore' })
}
const transport = transports[kind]()
await client.connect(transport)

const ways = {
  ping: (_params, options) => client.ping(options),
  'tools/list': (params, options) => client.listTools(params, options),
  'tools/call': (params, options) => client.callTool(params, undefined, options),
  'resources/list': (params, options) => client.listResources(params, options),
  'resources/templates/list': (params, options) => client.listResourceTemplates(params, options),
  'resources/read': (params, options) => client.readResource(params, options),
  'resources/subscribe': (params, options) => client.subscribeResource(params, options),
  'resources/unsubscribe': (params, options) => client.unsubscribeResource(params, options),
  'prompts/list': (params, options) => client.listPrompts(params, options),
  'prompts/get': (params, options) => client.getPrompt(params, options),
  'completion/complete': (params, options) => client.complete(params, options),
  'logging/setLevel': (params, options) => client.setLoggingLevel(params.level, options)
}
const ask = (method, params, options) => (
  ways[method]?.(params, options) ?? client.request({ method, params }, ResultSchema, options)
)

await play(scenario, asked, {
  server: client.getServerVersion(),
  capabilities: client.getServerCapabilities(),
  instructions: client.getInstructions()
}, ask)
if (kind === 'http') await transport.terminateSession()
await client.close()
