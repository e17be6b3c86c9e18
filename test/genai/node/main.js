// Makes the calls that applications make with Google's Node.js libraries for Gemini, the older one and the new one, and
// fails where an answer is not what the library's users get from Google. As a service it makes them for each request.
'use strict';
const assert = require('node:assert/strict');
const {VertexAI} = require('@google-cloud/vertexai');
const {GoogleGenAI} = require('@google/genai');

const model = 'gemini-2.5-flash';
const question = 'tell me a joke about cats';
const text = response => response.candidates[0].content.parts.map(p => p.text).join('');

async function vertexai(project, location) {
  const generative = new VertexAI({project, location}).getGenerativeModel({
    model,
    systemInstruction: 'you are funny',
    generationConfig: {temperature: 0, maxOutputTokens: 40},
  });
  const {response} = await generative.generateContent(question);
  assert.ok(text(response) && response.usageMetadata.promptTokenCount > 0, JSON.stringify(response));
  const streaming = await generative.generateContentStream(question);
  let streamed = '';
  for await (const piece of streaming.stream) streamed += text(piece);
  assert.equal(streamed, text(response));
  assert.equal(text(await streaming.response), streamed);
  assert.ok((await generative.countTokens({contents: [{role: 'user', parts: [{text: question}]}]})).totalTokens > 0);
  const chat = generative.startChat();
  for (const again of ['another one', 'another one']) assert.ok(text((await chat.sendMessage(again)).response));
  await assert.rejects(new VertexAI({project, location}).getGenerativeModel({model: 'claude'}).generateContent(question), /404/);
}

async function genai(project, location) {
  const {models, chats} = new GoogleGenAI({vertexai: true, project, location});
  const ask = {model, contents: question, config: {temperature: 0, maxOutputTokens: 40, systemInstruction: 'you are funny'}};
  const response = await models.generateContent(ask);
  assert.ok(response.text && response.usageMetadata.promptTokenCount > 0 && response.modelVersion !== model, JSON.stringify(response));
  let streamed = '';
  for await (const piece of await models.generateContentStream(ask)) streamed += piece.text ?? '';
  assert.equal(streamed, response.text);
  assert.ok((await models.countTokens({model, contents: question})).totalTokens > 0);
  const chat = chats.create({model, config: ask.config});
  for (const message of ['another one', 'another one']) assert.ok((await chat.sendMessage({message})).text);
  await assert.rejects(models.generateContent({...ask, model: 'claude'}), {status: 404});
  await assert.rejects(models.generateContent({...ask, config: {responseMimeType: 'application/json'}}), {status: 405});
}

async function main(project, say) {
  // The older library knows nothing of the host of "global".
  for (const [library, location] of [[vertexai, 'us-central1'], [genai, 'us-central1'], [genai, 'global']]) {
    await library(project, location);
    say(`${library.name} ${location} ok\n`);
  }
}

if (process.env.K_SERVICE) {
  require('node:http').createServer((req, res) => {
    main(process.env.PROJECT, s => res.write(s)).then(() => res.end(), e => res.end(`${e.stack}\n`));
  }).listen(process.env.PORT);
} else {
  main(process.argv[2], s => process.stdout.write(s)).catch(e => {
    console.error(e);
    process.exit(1);
  });
}
