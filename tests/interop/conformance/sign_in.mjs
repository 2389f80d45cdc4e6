// A user who agrees at once: follows the authorization URL and keeps what the redirect says.

/** Where the tool's authorization server finds metadata about this client. */
const METADATA_URL = 'https://conformance-test.local/client-metadata.json'
const REDIRECT_URL = 'http://localhost:3000/callback'
/** Times that a client signs in for one thing; the tool counts. */
const ATTEMPTS_MAX = 3

export class SignIn {
  #registered
  #tokens
  #verifier
  #discovered
  /** Parameters of the last redirect. */
  callback

  /** `registered`: a client that the authorization server knows already, if any. */
  constructor(registered) {
    this.#registered = registered
  }

  clientMetadataUrl = METADATA_URL
  redirectUrl = REDIRECT_URL
  clientMetadata = {
    client_name: 'conformance-fixture-client',
    redirect_uris: [REDIRECT_URL],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    application_type: 'native',
  }

  clientInformation = (about) => this.#of(about, this.#registered)
  saveClientInformation = (information) => { this.#registered = information }
  tokens = (about) => this.#of(about, this.#tokens)
  saveTokens = (tokens) => { this.#tokens = tokens }
  saveCodeVerifier = (verifier) => { this.#verifier = verifier }
  codeVerifier = () => this.#verifier
  saveDiscoveryState = (state) => { this.#discovered = state }
  discoveryState = () => this.#discovered
  invalidateCredentials = (what) => {
    if (what === 'all' || what === 'client') this.#registered = undefined
    if (what === 'all' || what === 'tokens') this.#tokens = undefined
    if (what === 'all' || what === 'verifier') this.#verifier = undefined
    if (what === 'all' || what === 'discovery') this.#discovered = undefined
  }

  async redirectToAuthorization(url) {
    const answer = await fetch(url, { redirect: 'manual' })
    const location = answer.headers.get('location')
    if (!location) throw new Error(`${url.pathname} says ${answer.status} and redirects nowhere`)
    this.callback = new URL(location, url).searchParams
  }

  /** Credentials of one authorization server are not for another. */
  #of(about, kept) {
    return about?.issuer && kept?.issuer && kept.issuer !== about.issuer ? undefined : kept
  }
}

/** Does `act`, and signs in by `transport()` as often as it takes. */
export async function signingIn(signIn, transport, act) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await act()
    } catch (error) {
      if (error?.name !== 'UnauthorizedError' && error?.constructor?.name !== 'UnauthorizedError') throw error
      if (!signIn.callback || attempt === ATTEMPTS_MAX) throw error
      const callback = signIn.callback
      signIn.callback = undefined
      await transport().finishAuth(callback)
    }
  }
}
