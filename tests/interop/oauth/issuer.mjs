// An authorization server for one run, on loopback: metadata, registration, a user who consents at
// once, PKCE, and tokens for the resource that was asked for. `issuer.mjs PORT`.

import { createHash, createSign, generateKeyPairSync, randomUUID } from 'node:crypto'
import { createServer } from 'node:http'

const issuer = `http://127.0.0.1:${process.argv[2]}`
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'one', use: 'sig', alg: 'ES256' }
const granted = new Map()

function encoded (value) {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

function token (claims) {
  const signed = `${encoded({ alg: 'ES256', kid: 'one', typ: 'at+jwt' })}.${encoded(claims)}`
  const signature = createSign('sha256').update(signed).sign({ key: privateKey, dsaEncoding: 'ieee-p1363' })
  return `${signed}.${signature.toString('base64url')}`
}

const pages = {
  'GET /.well-known/oauth-authorization-server': () => [200, {
    issuer,
    authorization_endpoint: `${issuer}/authorize`,
    token_endpoint: `${issuer}/token`,
    registration_endpoint: `${issuer}/register`,
    jwks_uri: `${issuer}/keys`,
    response_types_supported: ['code'],
    grant_types_supported: ['authorization_code'],
    code_challenge_methods_supported: ['S256'],
    token_endpoint_auth_methods_supported: ['none'],
    authorization_response_iss_parameter_supported: true
  }],
  'GET /keys': () => [200, { keys: [jwk] }],
  'POST /register': (_query, body) => [201, { ...JSON.parse(body), client_id: `client-${randomUUID()}` }],
  'GET /authorize': (query) => {
    const code = randomUUID()
    granted.set(code, Object.fromEntries(query))
    const back = new URL(query.get('redirect_uri'))
    for (const [name, value] of Object.entries({ code, state: query.get('state'), iss: issuer })) {
      if (value !== null) back.searchParams.set(name, value)
    }
    return [302, {}, { location: back.href }]
  },
  'POST /token': (_query, body) => {
    const form = new URLSearchParams(body)
    const grant = granted.get(form.get('code'))
    granted.delete(form.get('code'))
    const challenge = createHash('sha256').update(form.get('code_verifier') ?? '').digest('base64url')
    if (grant === undefined || challenge !== grant.code_challenge) return [400, { error: 'invalid_grant' }]
    if (form.get('resource') !== grant.resource) return [400, { error: 'invalid_target' }]
    const now = Math.floor(Date.now() / 1000)
    const access = token({
      iss: issuer,
      sub: 'user-of-this-run',
      aud: grant.resource,
      client_id: grant.client_id,
      scope: grant.scope ?? '',
      iat: now,
      exp: now + 300
    })
    return [200, { access_token: access, token_type: 'Bearer', expires_in: 300, scope: grant.scope }]
  }
}

createServer((request, response) => {
  let body = ''
  request.on('data', (piece) => { body += piece })
  request.on('end', () => {
    const url = new URL(request.url, issuer)
    const page = pages[`${request.method} ${url.pathname}`]
    console.error(request.method, url.pathname)
    const [status, answer, headers] = page?.(url.searchParams, body) ?? [404, {}]
    response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store', ...headers })
    response.end(JSON.stringify(answer))
  })
}).listen(Number(process.argv[2]), '127.0.0.1')
