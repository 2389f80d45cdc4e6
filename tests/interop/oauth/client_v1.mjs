// The official TypeScript client, 1.x, with a token. `client_v1.mjs URL TOOL ARGUMENTS`.

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js'
import { connected, say } from './login.mjs'

await say(await connected((authProvider) => ({
  client: new Client({ name: 'interop-v1', version: '1' }),
  transport: new StreamableHTTPClientTransport(new URL(process.argv[2]), { authProvider })
})))
