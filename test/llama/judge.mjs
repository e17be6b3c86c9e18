// Reads one JSON line from standard input: {model, greedy: {requests, end, length} | force: [texts] | encode: [texts]}, and
// answers with one. Tokens are ids. Everything comes from llama.cpp.
import {createInterface} from "node:readline";
import {getLlama, LlamaLogLevel} from "node-llama-cpp";

const llama = await getLlama({gpu: false, build: "never", logLevel: LlamaLogLevel.error});

async function withSequence(model, do_) {
    const context = await model.createContext({contextSize: 512, sequences: 1, threads: 1, flashAttention: false, experimentalKvCacheKeyType: "F32", experimentalKvCacheValueType: "F32"});
    try {
        return await do_(context.getSequence());
    } finally {
        await context.dispose();
    }
}

const next = {generateNext: {logits: true}};

function dense(map) {
    const out = new Array(map.size).fill(0);
    for (const [id, logit] of map) out[id] = logit;
    return out;
}

// One conversation: each request is answered up to the end mark, until length tokens were chosen. chosen are their places.
async function greedy(model, {requests, end, length}) {
    return withSequence(model, async (sequence) => {
        const text = [], chosen = [];
        for (let turn = 0; chosen.length < length; turn++) {
            const request = requests[turn % requests.length];
            text.push(...request);
            let input = request.map((id, i) => i === request.length - 1 ? [id, next] : id);
            for (let top; top !== end && chosen.length < length;) {
                [top] = (await sequence.controlledEvaluate(input)).at(-1).next.logits.keys(); // sorted, the largest first
                chosen.push(text.length);
                text.push(top);
                input = [[top, next]];
            }
            if (text.at(-1) === end) await sequence.controlledEvaluate([end]);
        }
        return {texts: [text], chosen};
    });
}

async function force(model, texts) {
    const logits = [];
    for (const text of texts)
        logits.push(await withSequence(model, async (sequence) =>
            (await sequence.controlledEvaluate(text.map((id) => [id, next]))).map((r) => dense(r.next.logits))));
    return {logits};
}

for await (const line of createInterface({input: process.stdin})) {
    const ask = JSON.parse(line);
    const model = await llama.loadModel({modelPath: ask.model});
    let answer;
    if (ask.greedy) answer = await greedy(model, ask.greedy);
    else if (ask.force) answer = await force(model, ask.force);
    else answer = {ids: ask.encode.map((text) => model.tokenize(text))};
    await model.dispose();
    await new Promise((done) => process.stdout.write(JSON.stringify(answer) + "\n", done));
}
process.exit(0);
