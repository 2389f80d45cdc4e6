// What the conformance tool expects a server to offer, on the official SDK v2: tools, resources
// and prompts for the legacy and the modern era. How it is served is in server.mjs.

import {
  McpServer,
  ResourceTemplate,
  completable,
  createRequestStateCodec,
  fromJsonSchema,
  inputRequired,
} from '@modelcontextprotocol/server'
import * as z from 'zod'

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGP4z8DwHwAFAAH/iZk9HQAAAABJRU5ErkJggg=='
const WAV = 'UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA=='
const STEP_MS = 50

const state = createRequestStateCodec({ key: new Uint8Array(32).fill(7), ttlSeconds: 600 })

const text = (value) => ({ content: [{ type: 'text', text: value }] })
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const form = (properties, message) =>
  inputRequired.elicit({
    message,
    requestedSchema: { type: 'object', properties, required: Object.keys(properties) },
  })
const sampling = (question, maxTokens) =>
  inputRequired.createMessage({
    messages: [{ role: 'user', content: { type: 'text', text: question } }],
    maxTokens,
  })

const askName = () => form({ name: { type: 'string' } }, 'What is your name?')
const askOk = () => form({ ok: { type: 'boolean' } }, 'Please confirm')

/** The content of an accepted elicitation, if the client sent one under `key`. */
function accepted(ctx, key, member) {
  const response = ctx.mcpReq.inputResponses?.[key]
  const value = response?.action === 'accept' ? response.content?.[member] : undefined
  return value === undefined ? undefined : response.content
}

// Tools without arguments, by name: what each does.

const plainTools = {
  test_simple_text: () => text('This is a simple text response for testing.'),
  test_image_content: () => ({ content: [{ type: 'image', data: PNG, mimeType: 'image/png' }] }),
  test_audio_content: () => ({ content: [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }] }),
  test_embedded_resource: () => ({
    content: [{
      type: 'resource',
      resource: {
        uri: 'test://embedded-resource',
        mimeType: 'text/plain',
        text: 'This is an embedded resource content.',
      },
    }],
  }),
  test_multiple_content_types: () => ({
    content: [
      { type: 'text', text: 'Multiple content types test:' },
      { type: 'image', data: PNG, mimeType: 'image/png' },
      {
        type: 'resource',
        resource: {
          uri: 'test://mixed-content-resource',
          mimeType: 'application/json',
          text: '{"test":"data","value":123}',
        },
      },
    ],
  }),
  test_error_handling: () => {
    throw new Error('This tool intentionally returns an error for testing')
  },
  test_tool_with_logging: async (ctx) => {
    for (const line of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
      await ctx.mcpReq.log('info', line)
      await wait(STEP_MS)
    }
    return text('Logged three times.')
  },
  test_logging_tool: async (ctx) => {
    await ctx.mcpReq.log('info', 'only for who asked')
    return text('Logged, if a level was asked for.')
  },
  test_tool_with_progress: async (ctx) => {
    const progressToken = ctx.mcpReq._meta?.progressToken
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined) {
        const params = { progressToken, progress, total: 100 }
        await ctx.mcpReq.notify({ method: 'notifications/progress', params })
      }
      await wait(STEP_MS)
    }
    return text('Progress was reported.')
  },
  test_reconnection: async (ctx) => {
    ctx.http?.closeSSE?.()
    await wait(2 * STEP_MS)
    return text('The answer came after the stream was closed.')
  },
  test_elicitation_sep1034_defaults: (ctx) =>
    elicitNow(ctx, 'Please check the defaults', {
      name: { type: 'string', default: 'John Doe' },
      age: { type: 'integer', default: 30 },
      score: { type: 'number', default: 95.5 },
      status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
      verified: { type: 'boolean', default: true },
    }),
  test_elicitation_sep1330_enums: (ctx) => {
    const titled = (word) => ['First', 'Second', 'Third'].map((nth, n) => ({ const: `value${n + 1}`, title: `${nth} ${word}` }))
    const options = ['option1', 'option2', 'option3']
    return elicitNow(ctx, 'Please choose', {
      untitledSingle: { type: 'string', enum: options },
      titledSingle: { type: 'string', oneOf: titled('Option') },
      legacyEnum: {
        type: 'string',
        enum: ['opt1', 'opt2', 'opt3'],
        enumNames: ['Option One', 'Option Two', 'Option Three'],
      },
      untitledMulti: { type: 'array', items: { type: 'string', enum: options } },
      titledMulti: { type: 'array', items: { anyOf: titled('Choice') } },
    })
  },
  // The SDK refuses this for a client that did not declare sampling.
  test_missing_capability: () =>
    inputRequired({ inputRequests: { question: sampling('Can you sample?', 10) } }),
  test_streaming_elicitation: async (ctx) => {
    await ctx.mcpReq.notify({ method: 'notifications/message', params: { level: 'info', data: 'asking' } }).catch(() => {})
    return accepted(ctx, 'user_name', 'name')
      ? text('Thank you.')
      : inputRequired({ inputRequests: { user_name: askName() } })
  },
  test_input_required_result_elicitation: (ctx) => {
    const content = accepted(ctx, 'user_name', 'name')
    return content
      ? text(`Hello, ${content.name}!`)
      : inputRequired({ inputRequests: { user_name: askName() } })
  },
  test_input_required_result_sampling: (ctx) => {
    const answer = ctx.mcpReq.inputResponses?.capital_question
    return answer?.content
      ? text(`The answer was: ${[answer.content].flat()[0].text}`)
      : inputRequired({ inputRequests: { capital_question: sampling('What is the capital of France?', 100) } })
  },
  test_input_required_result_list_roots: (ctx) => {
    const roots = ctx.mcpReq.inputResponses?.client_roots?.roots
    return roots
      ? text(`Roots: ${roots.map((root) => root.uri).join(', ')}`)
      : inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } })
  },
  test_input_required_result_request_state: async (ctx) =>
    accepted(ctx, 'confirm', 'ok') && ctx.mcpReq.requestState()?.step === 'confirm'
      ? text('state-ok')
      : inputRequired({ inputRequests: { confirm: askOk() }, requestState: await state.mint({ step: 'confirm' }, ctx) }),
  test_input_required_result_tampered_state: async (ctx) =>
    accepted(ctx, 'confirm', 'ok') && ctx.mcpReq.requestState()?.step === 'sealed'
      ? text('The state came back whole.')
      : inputRequired({ inputRequests: { confirm: askOk() }, requestState: await state.mint({ step: 'sealed' }, ctx) }),
  test_input_required_result_multiple_inputs: async (ctx) => {
    const responses = ctx.mcpReq.inputResponses ?? {}
    if (accepted(ctx, 'user_name', 'name') && responses.greeting && responses.client_roots) {
      return text('All three were answered.')
    }
    return inputRequired({
      inputRequests: {
        user_name: askName(),
        greeting: sampling('Generate a greeting', 50),
        client_roots: inputRequired.listRoots(),
      },
      requestState: await state.mint({ step: 'three' }, ctx),
    })
  },
  test_input_required_result_multi_round: async (ctx) => {
    const step = ctx.mcpReq.requestState()?.step
    if (step === 2 && accepted(ctx, 'step2', 'color')) {
      return text('Both rounds are done.')
    }
    if (step === 1 && accepted(ctx, 'step1', 'name')) {
      const step2 = form({ color: { type: 'string' } }, 'Step 2: What is your favorite color?')
      return inputRequired({ inputRequests: { step2 }, requestState: await state.mint({ step: 2 }, ctx) })
    }
    const step1 = form({ name: { type: 'string' } }, 'Step 1: What is your name?')
    return inputRequired({ inputRequests: { step1 }, requestState: await state.mint({ step: 1 }, ctx) })
  },
  test_input_required_result_capabilities: (ctx) => {
    const can = capabilities(ctx)
    const inputRequests = {}
    if (can.elicitation) inputRequests.user_name = askName()
    if (can.sampling) inputRequests.greeting = sampling('Generate a greeting', 50)
    return Object.keys(inputRequests).length ? inputRequired({ inputRequests }) : text('Nothing can be asked.')
  },
}

const capabilities = (ctx) => ctx.mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities'] ?? {}

async function elicitNow(ctx, message, properties) {
  const requestedSchema = { type: 'object', properties, required: [] }
  const answer = await ctx.mcpReq.send({ method: 'elicitation/create', params: { message, requestedSchema } })
  return text(`Elicitation completed: action=${answer.action}, content=${JSON.stringify(answer.content ?? {})}`)
}

const SCHEMA_2020_12 = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  $defs: {
    address: {
      $anchor: 'addressDef',
      type: 'object',
      properties: { street: { type: 'string' }, city: { type: 'string' } },
    },
  },
  properties: {
    name: { type: 'string' },
    address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] },
    phone: { type: 'string' },
    email: { type: 'string' },
  },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false,
}

function addTools(server, changed) {
  for (const [name, run] of Object.entries(plainTools)) {
    server.registerTool(name, { description: `Fixture: ${name}` }, run)
  }
  const strings = (...names) => z.object(Object.fromEntries(names.map((name) => [name, z.string()])))
  server.registerTool(
    'test_sampling',
    { description: 'Asks the client to sample', inputSchema: strings('prompt') },
    async ({ prompt }, ctx) => {
      const messages = [{ role: 'user', content: { type: 'text', text: prompt } }]
      const answer = await ctx.mcpReq.send({ method: 'sampling/createMessage', params: { messages, maxTokens: 100 } })
      return text(`LLM response: ${[answer.content].flat()[0].text}`)
    },
  )
  server.registerTool(
    'test_elicitation',
    { description: 'Asks the user for two strings', inputSchema: strings('message') },
    async ({ message }, ctx) => {
      const properties = {
        username: { type: 'string', description: "User's response" },
        email: { type: 'string', description: "User's email address" },
      }
      const requestedSchema = { type: 'object', properties, required: ['username', 'email'] }
      const answer = await ctx.mcpReq.send({ method: 'elicitation/create', params: { message, requestedSchema } })
      return text(`User response: action=${answer.action}, content=${JSON.stringify(answer.content ?? {})}`)
    },
  )
  server.registerTool(
    'json_schema_2020_12_tool',
    { description: 'Tool with JSON Schema 2020-12 features', inputSchema: fromJsonSchema(SCHEMA_2020_12) },
    (given) => text(JSON.stringify(given)),
  )
  server.registerTool(
    'test_x_mcp_header',
    {
      description: 'Its region argument is mirrored into a header',
      inputSchema: fromJsonSchema({
        type: 'object',
        properties: { region: { type: 'string', 'x-mcp-header': 'Region' } },
      }),
    },
    ({ region }) => text(`region: ${region}`),
  )
  for (const kind of ['tool', 'prompt']) {
    server.registerTool(`test_trigger_${kind}_change`, { description: `Tells that the ${kind}s changed` }, () => {
      changed(kind)
      return text('Told.')
    })
  }
}

function addResources(server) {
  const add = (name, uri, mimeType, body) =>
    server.registerResource(name, uri, { description: `Fixture: ${name}`, mimeType }, (url) => ({
      contents: [{ uri: url.href, mimeType, ...body }],
    }))
  add('static-text', 'test://static-text', 'text/plain', { text: 'This is the content of the static text resource.' })
  add('static-binary', 'test://static-binary', 'image/png', { blob: PNG })
  add('watched', 'test://watched-resource', 'text/plain', { text: 'Watched.' })
  server.registerResource(
    'template',
    new ResourceTemplate('test://template/{id}/data', { list: undefined }),
    { description: 'Fixture: template', mimeType: 'application/json' },
    (url, { id }) => {
      const body = { id, templateTest: true, data: `Data for ID: ${id}` }
      return { contents: [{ uri: url.href, mimeType: 'application/json', text: JSON.stringify(body) }] }
    },
  )
}

function addPrompts(server) {
  const user = (content) => ({ role: 'user', content })
  const say = (value) => user({ type: 'text', text: value })
  server.registerPrompt('test_simple_prompt', { description: 'One message' }, () => ({
    messages: [say('This is a simple prompt for testing.')],
  }))
  const args = z.object({
    arg1: completable(z.string().describe('First test argument'), (begun) => ['paris', 'park', 'party'].filter((word) => word.startsWith(begun))),
    arg2: z.string().describe('Second test argument'),
  })
  server.registerPrompt('test_prompt_with_arguments', { description: 'Two arguments', argsSchema: args }, ({ arg1, arg2 }) => ({
    messages: [say(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)],
  }))
  server.registerPrompt(
    'test_prompt_with_embedded_resource',
    { description: 'A resource in it', argsSchema: z.object({ resourceUri: z.string() }) },
    ({ resourceUri }) => ({
      messages: [
        user({
          type: 'resource',
          resource: { uri: resourceUri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' },
        }),
        say('Please process the embedded resource above.'),
      ],
    }),
  )
  server.registerPrompt('test_prompt_with_image', { description: 'An image in it' }, () => ({
    messages: [user({ type: 'image', data: PNG, mimeType: 'image/png' }), say('Please analyze the image above.')],
  }))
  server.registerPrompt('test_input_required_result_prompt', { description: 'Needs an answer first' }, (ctx) => {
    const content = accepted(ctx, 'user_context', 'context')
    const ask = () => form({ context: { type: 'string' } }, 'What context should the prompt use?')
    return content
      ? { messages: [say(`Context: ${content.context}`)] }
      : inputRequired({ inputRequests: { user_context: ask() } })
  })
}

/**
 * One server with all fixtures. `changed` is called with `tool` or `prompt` when a client asks for
 * a change of that list; it must tell whoever subscribed.
 */
export function fixtureServer(changed) {
  const server = new McpServer(
    { name: 'conformance-fixture', version: '1.0.0' },
    {
      capabilities: {
        completions: {},
        logging: {},
        prompts: { listChanged: true },
        resources: { listChanged: true, subscribe: true },
        tools: { listChanged: true },
      },
      // An input_required result is for clients that can fulfil it; nothing is asked behind it.
      inputRequired: { legacyShim: false },
      requestState: { verify: state.verify },
    },
  )
  const watched = new Set()
  server.server.setRequestHandler('resources/subscribe', ({ params }) => {
    watched.add(params.uri)
    return {}
  })
  server.server.setRequestHandler('resources/unsubscribe', ({ params }) => {
    watched.delete(params.uri)
    return {}
  })
  addTools(server, changed)
  addResources(server)
  addPrompts(server)
  return server
}
