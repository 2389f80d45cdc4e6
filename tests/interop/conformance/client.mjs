// The official TypeScript client, 2.x, doing what each scenario of the conformance tool's client
// mode wants to see: `client.mjs URL`, the scenario, its context and the revision in the environment.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'

import { SignIn, signingIn } from './sign_in.mjs'

const scenario = process.env.MCP_CONFORMANCE_SCENARIO
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}')
const modern = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION === '2026-07-28'
const url = new URL(process.argv[2])

const oauth = scenario.startsWith('auth/')
const signIn = new SignIn(context.client_id && { client_id: context.client_id, client_secret: context.client_secret })
let transport

function newClient() {
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
  return client
}

/** A client that failed to connect is not used again. */
const client = await signingIn(signIn, () => transport, async () => {
  const client = newClient()
  transport = new StreamableHTTPClientTransport(url, oauth ? { authProvider: signIn } : {})
  await client.connect(transport)
  return client
})

const call = (name, args = {}) =>
  signingIn(signIn, () => transport, () => client.callTool({ name, arguments: args }))

/** Every tool that the client deems usable, so that the tool sees which ones it left out. */
async function callListed(args) {
  const { tools } = await signingIn(signIn, () => transport, () => client.listTools())
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

await (plays[scenario] ?? (() => callListed()))()
await client.close()
