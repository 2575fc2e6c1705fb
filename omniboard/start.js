// Starts Omniboard on the database that SHOAL_MONGO_URL names: HOST:PORT:DB or a mongodb:// URL.
//
// Omniboard asks nobody for a password and can delete runs, yet it listens on every interface and has no option for
// that. Here it listens on this machine only, unless OMNIBOARD_HOST says otherwise. PORT is its port (9000).
'use strict'

const net = require('net')

const host = process.env.OMNIBOARD_HOST || '127.0.0.1'
const port = process.env.PORT || '9000'
const target = process.env.SHOAL_MONGO_URL || '127.0.0.1:27017:sacred'

function fail (sentence) {
  console.error(`error: ${sentence}`)
  process.exit(1)
}

const plain = /^([^:/@]+):(\d+):([^:/.]+)$/.exec(target)
if (!plain && !/^mongodb(\+srv)?:\/\//.test(target)) {
  fail('SHOAL_MONGO_URL is no address that Omniboard takes: give HOST:PORT:DB or mongodb://USER:PASSWORD@HOST:PORT/DB')
}
// In the environment, not on the command line, which every user of the machine can read.
process.env.MONGO_URI = plain ? `mongodb://${plain[1]}:${plain[2]}/${plain[3]}` : target
process.env.PORT = port

const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (wanted, ...rest) {
  // It would go on to the next port, where nobody looks.
  if (String(wanted) !== port) fail(`port ${port} is taken: choose another one with PORT=${Number(port) + 1}`)
  const server = listen.call(this, wanted, host, ...rest)
  server.once('listening', () => console.log(`Omniboard: http://${host}:${port}`))
  return server
}

// Without this, it ends at once where MongoDB is not up yet, instead of trying again as it says it does.
process.on('unhandledRejection', (reason) => console.error(`MongoDB: ${reason && reason.message}`))

process.argv.length = 2
require('omniboard/dist/start.js')
