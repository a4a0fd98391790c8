// A plugin for Portolan: a worker that answers every message with the message itself.

import { log } from 'portolan:worker/host@0.1.0';
import { ownAddress, send } from 'portolan:worker/node@0.1.0';

export const handler = {
  // What `portolan plugin add` shows. Whatever else the worker does needs a right in `wants`; wit/worker.wit has the list.
  describe() {
    return {
      name: '{{name}}',
      version: '0.1.0',
      description: 'Answers every message with the message itself.',
      wants: ['reply', 'from:local', 'from:peers'],
    };
  },

  // Throwing a text refuses the configuration, and the worker is not started.
  start(config) {
    if (!['', '{}'].includes(config.trim())) {
      throw `this plugin has nothing to configure, and got ${config}`;
    }
    log('info', `ready at ${ownAddress()}`);
  },

  // A text that is thrown is logged and counted, and the next message comes. Any other error restarts the plugin.
  handle(message) {
    try {
      send(message.returnRoute, message.body);
    } catch (error) {
      // The words of an exception that is no text would be lost.
      throw error.payload ? `no answer was sent: ${JSON.stringify(error.payload)}` : `${error}`;
    }
  },

  onTimer(token) {},

  stop() {},
};
