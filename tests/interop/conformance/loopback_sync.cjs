// Preload (`node --require`) for the tool's client mode, which binds every interface, offers no
// option against it, and reads the address before its next turn: a host name would come too late
// for it, so the address is set where Node binds.
'use strict'

const net = require('node:net')

const bind = net.Server.prototype._listen2

net.Server.prototype._listen2 = function (address, port, family, ...rest) {
  return address === null ? bind.call(this, '127.0.0.1', port, 4, ...rest) : bind.call(this, address, port, family, ...rest)
}
