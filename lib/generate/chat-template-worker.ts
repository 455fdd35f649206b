// The thread that renders one chat template, which is code of whoever made the checkpoint.
import { parentPort, workerData } from 'node:worker_threads';
import { Template } from '@huggingface/jinja';
import { kLongestPrompt, type RenderReply, type RenderRequest } from './chat-template';

function render({ template, variables }: RenderRequest): RenderReply {
  try {
    const text = new Template(template).render(variables);
    if (text.length > kLongestPrompt) return { error: `it gave ${text.length} characters; at most ${kLongestPrompt} are taken` };
    return { text };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

parentPort?.postMessage(render(workerData as RenderRequest));
