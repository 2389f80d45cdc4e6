// Preload (`node --require`): whatever asks to listen, listens on 127.0.0.1. server-everything
// binds every interface and offers no option against it.
'use strict'

const net = require('node:net')

const listen = net.Server.prototype.listen

net.Server.prototype.listen = function (...args) {
  const [first] = args
  if (typeof first === 'object' && first !== null && first.path === undefined) {
    args[0] = { ...first, host: '127.0.0.1' }
  } else if (typeof first === 'number' || (typeof first === 'string' && /^\d+$/.test(first))) {
    const callback = args.find((arg) => typeof arg === 'function')
    args = [{ port: Number(first), host: '127.0.0.1' }, ...(callback ? [callback] : [])]
  }
  return listen.apply(this, args)
}
