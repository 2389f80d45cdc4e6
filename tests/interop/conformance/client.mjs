// The official TypeScript client, 2.x, doing what each scenario of the conformance tool's client
// mode wants to see: `client.mjs URL`, the scenario, its context and the revision in the environment.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'

const scenario = process.env.MCP_CONFORMANCE_SCENARIO
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}')
const modern = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION === '2026-07-28'
const url = new URL(process.argv[2])

const client = new Client(
  { name: 'conformance-fixture-client', version: '1.0.0' },
  {
    capabilities: { sampling: {}, elicitation: { form: { applyDefaults: true } }, roots: {} },
    versionNegotiation: { mode: modern ? 'auto' : 'legacy' },
  },
)
client.setRequestHandler('elicitation/create', ({ params }) => ({
  action: 'accept',
  content: 'confirmed' in (params.requestedSchema?.properties ?? {}) ? { confirmed: true } : {},
}))

const call = (name, args = {}) => client.callTool({ name, arguments: args })

/** Every tool that the client deems usable, so that the tool sees which ones it left out. */
async function callListed(args) {
  const { tools } = await client.listTools()
  for (const { name } of tools) await call(name, args)
  return tools
}

const plays = {
  tools_call: () => callListed({ a: 2, b: 3 }),
  'http-standard-headers': async () => {
    await callListed()
    const { resources } = await client.listResources()
    for (const { uri } of resources) await client.readResource({ uri })
    const { prompts } = await client.listPrompts()
    for (const { name } of prompts) await client.getPrompt({ name })
  },
  'http-custom-headers': async () => {
    await client.listTools()
    for (const { name, arguments: args } of context.toolCalls) await call(name, args)
  },
  'http-invalid-tool-headers': () => callListed({ region: 'eu' }),
  'json-schema-ref-no-deref': () => client.listTools(),
  'json-schema-2020-12-preservation': async () => {
    const { tools } = await client.listTools()
    const focal = tools.find(({ name }) => name === 'json_schema_2020_12_tool')
    await call('json_schema_echo', { schema: focal.inputSchema })
  },
}

await client.connect(new StreamableHTTPClientTransport(url))
await (plays[scenario] ?? (() => callListed()))()
await client.close()
