// An issuer of OpenID Connect for one run, on loopback: oidc-provider as it comes, with its own pages to
// sign in and to consent, one client and two people. `oidc_provider.mjs PORT REDIRECT_URI SECRET`.
// Each start has a new key.

import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { Provider } from 'oidc-provider'

const [port, redirectUri, secret] = process.argv.slice(2)
const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const key = { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'ES256' }
const groups = { ann: ['staff', 'sre-on-call'], eve: ['staff'] }

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: 'bartizan',
    client_secret: secret,
    redirect_uris: [redirectUri],
    response_types: ['code'],
    grant_types: ['authorization_code'],
    id_token_signed_response_alg: 'ES256'
  }],
  jwks: { keys: [key] },
  cookies: { keys: [randomUUID()] },
  claims: { openid: ['sub'], email: ['email'], groups: ['groups'] },
  // Otherwise the groups are at the UserInfo endpoint alone.
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  features: { devInteractions: { enabled: true } },
  findAccount: (_ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: `${id}@example.com`, groups: groups[id] })
  })
})
provider.listen(Number(port), '127.0.0.1')
