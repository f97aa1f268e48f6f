// The node "edged open": what `mqtt in` hears of edged's boards comes in; results, refusals and questions go out.

module.exports = async (RED) => {
  const { FormatError, Hub, readHubKey, readRecords, Receiver } = await import('edged-results')

  RED.nodes.registerType('edged open', function (config) {
    RED.nodes.createNode(this, config)
    const count = { opened: 0, refused: 0 }
    let hub
    try {
      hub = new Hub(new Receiver(readHubKey(config.hubKey), readRecords([config.records])), { prefix: config.prefix })
      show(this, count)
    } catch (error) {
      this.status({ fill: 'red', shape: 'ring', text: error.message })
      this.error(error.message)
      return
    }

    this.on('input', ({ topic, payload, retain }, send, done) => {
      if (!Buffer.isBuffer(payload)) return done(new FormatError("set the output of 'mqtt in' to a Buffer"))
      const { opened, refused, questions } = hub.take(String(topic), payload, { retained: retain })
      count.opened += opened.length
      count.refused += refused.length
      show(this, count)
      send([
        opened.map(({ topic, result }) => ({ topic, payload: result })),
        refused.map(({ topic, error }) => ({ topic, payload: { error: error.name, message: error.message, topic } })),
        questions.map((question) => ({ ...question, qos: 1 })),
      ])
      done()
    })
  })
}

function show(node, { opened, refused }) {
  node.status({ fill: refused ? 'yellow' : 'green', shape: 'dot', text: `${opened} opened, ${refused} refused` })
}
