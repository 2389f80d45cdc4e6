// The official TypeScript client, 2.x, with a token. `client_v2.mjs URL TOOL ARGUMENTS`.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { connected, say } from './login.mjs'

await say(await connected((authProvider) => ({
  client: new Client(
    { name: 'interop-v2', version: '1' },
    { versionNegotiation: { mode: process.env.ERA ?? 'auto' } }
  ),
  transport: new StreamableHTTPClientTransport(new URL(process.argv[2]), { authProvider })
})))
