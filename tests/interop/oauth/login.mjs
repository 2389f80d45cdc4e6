// A TypeScript client's part in OAuth: it remembers what it is told, and its user consents at once.

export class Login {
  redirectUrl = 'http://127.0.0.1:9/callback'
  kept = {}
  consents = 0

  get clientMetadata () {
    return {
      client_name: 'interop',
      redirect_uris: [this.redirectUrl],
      grant_types: ['authorization_code'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none'
    }
  }

  clientInformation () { return this.kept.client }
  saveClientInformation (client) { this.kept.client = client }
  tokens () { return this.kept.tokens }
  saveTokens (tokens) { this.kept.tokens = tokens }
  codeVerifier () { return this.kept.verifier }
  saveCodeVerifier (verifier) { this.kept.verifier = verifier }
  discoveryState () { return this.kept.discovery }
  saveDiscoveryState (discovery) { this.kept.discovery = discovery }

  async redirectToAuthorization (url) {
    const answer = await fetch(url, { redirect: 'manual' })
    this.callback = new URL(answer.headers.get('location')).searchParams
    this.consents += 1
  }
}

/** Connects with what `make(login)` gives, `{ client, transport }`: first in vain, then with a token. */
export async function connected (make) {
  const login = new Login()
  const first = make(login)
  await first.client.connect(first.transport).then(
    () => { throw new Error('nobody asked for a token') },
    (error) => { if (login.callback === undefined) throw error }
  )
  await first.transport.finishAuth(login.callback.get('code'), login.callback.get('iss'))
  const { client, transport } = make(login)
  await client.connect(transport)
  return { client, transport, login }
}

/** Calls one tool, and says what came of it all. */
export async function say ({ client, transport, login }) {
  const [name, args] = process.argv.slice(3)
  const { tools } = await client.listTools()
  const { content } = await client.callTool({ name, arguments: JSON.parse(args) })
  await transport.terminateSession()
  await client.close()
  console.log(JSON.stringify({ tools: tools.length, content, consents: login.consents }))
}
