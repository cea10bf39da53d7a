'use strict';

// What is shown comes from /v1/events; nothing else is asked for again and again but the frame itself.
const $ = id => document.getElementById(id);
const COLUMNS = 8;          // of the sheet that /v1/views.jpg draws
const MINUTES = 5;          // of the plots
const TOP = 5;
const PICTURES_MS = 1000;   // at least, from one sheet of views to the next: each is made for the asking
const RECENT = 32;          // decisions that a sheet may still belong to

const state = {
  decision: null, recent: [], points: [], tag: null, savedText: '', lastStatus: null, frameBusy: false,
  pictures: false, sheetBusy: false, sheetStale: false,
};

const percent = p => (100 * p).toFixed(p < 0.9995 ? 1 : 0) + ' %';
const ms = t => t < 10 ? t.toFixed(1) + ' ms' : Math.round(t) + ' ms';
const counted = (count, noun) => count + ' ' + noun + (count === 1 ? '' : 's');
const text = (id, value) => { const node = $(id); if (node.textContent !== value) node.textContent = value; };

async function ask(path, options) {
  const response = await fetch(path, options);
  if (response.ok) return response;
  const record = await response.json().catch(() => null);
  throw new Error(record && record.error ? record.error.message : 'the daemon answers ' + response.status);
}

function element(name, className, content) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (content !== undefined) node.textContent = content;
  return node;
}

function track(kind, share) {
  const outer = element('span', 'track');
  const bar = element('span', 'bar ' + kind);
  bar.style.width = (100 * share).toFixed(2) + '%';
  outer.append(bar);
  return outer;
}

function showDecision(decision) {
  state.decision = decision;
  state.recent = [decision, ...state.recent].slice(0, RECENT);
  const image = decision.image;
  text('label', image.label);
  text('probability', percent(image.probability));
  text('method', image.method);
  showTamper(image);
  const zero = image.zero_shot;
  const rows = image.top.slice(0, TOP).map((answer, index) => [answer.label, answer.probability, decision.zero_shot[index]]);
  if (!image.top.some(answer => answer.label === zero.label)) rows.push([zero.label, null, zero.probability]);
  $('bars').tBodies[0].replaceChildren(...rows.map(([label, rtpt, plain]) => {
    const row = element('tr');
    const head = element('th', '', label);
    head.scope = 'row';
    const pair = element('div', 'pair');
    pair.append(track('rtpt', rtpt || 0), element('span', '', rtpt === null ? 'less' : percent(rtpt)));
    pair.append(track('zero', plain), element('span', '', percent(plain)));
    const cell = element('td');
    cell.append(pair);
    row.append(head, cell);
    return row;
  }));
  text('frame-note', image.path + ' · ' + new Date(decision.unix_ms).toLocaleTimeString() + ' · ' + ms(image.timings_ms.total) + ' · ' + seenIn(image) + ', method ' + image.method);
  text('dropped', String(decision.dropped));
  showFrame(decision);
  if (state.pictures) refreshPictures();
  else showViews(decision);
}

function seenIn({ views, views_used: used }) {
  return used === undefined ? counted(views, 'view') : counted(used, 'view') + ' of at most ' + views;
}

// In rounds the gate says whether a frame is suspicious, without them the tamper score.
function showTamper({ tamper, gate }) {
  const node = $('tamper');
  node.hidden = !tamper && !gate;
  if (node.hidden) return;
  const suspicious = gate ? gate.cosine < gate.bound : tamper.suspicious === true;
  node.classList.toggle('suspicious', suspicious);
  const limit = tamper && tamper.threshold !== undefined ? ' (suspicious above ' + tamper.threshold.toFixed(2) + ')' : '';
  const measured = gate
    ? 'Likeness to its copy without detail ' + gate.cosine.toFixed(2) + ' (suspicious below ' + gate.bound.toFixed(2) + ')'
    : 'Tamper score ' + tamper.score.toFixed(2) + limit;
  node.textContent = (suspicious ? 'This frame may have been tampered with. ' : '') + measured;
}

// One frame at a time: on a slow link the next is asked for when the last has come.
function showFrame(decision) {
  const frame = $('frame');
  if (state.frameBusy) return;
  state.frameBusy = true;
  frame.onload = frame.onerror = event => {
    state.frameBusy = false;
    frame.hidden = event.type === 'error';
    $('no-frame').hidden = event.type !== 'error';
  };
  frame.alt = 'The latest frame, answered as ' + decision.image.label;
  frame.src = '/v1/frame.jpg?' + decision.sequence + '-' + decision.unix_ms;
}

function showViews(decision) {
  text('views-note', 'The views of ' + decision.image.path + ', ' + new Date(decision.unix_ms).toLocaleTimeString());
  const largest = Math.max(...decision.views.map(view => view.weight), 1e-9);
  const list = $('tiles');
  // As in the explain picture: where the tuning used all views, none is marked.
  const some = decision.views.some(view => !view.selected);
  while (list.children.length > decision.views.length) list.lastChild.remove();
  decision.views.forEach((view, index) => {
    let tile = list.children[index];
    if (!tile) {
      tile = element('li');
      const weight = element('div', 'weight');
      weight.append(element('span'));
      tile.append(element('div', 'thumb'), weight, element('span', 'name'), element('span', 'share'));
      list.append(tile);
    }
    tile.classList.toggle('agrees', view.label === decision.image.label);
    tile.classList.toggle('selected', some && view.selected);
    tile.title = (index === 0 ? 'the clean view, the central square: ' : '') + view.label + ', ' + percent(view.probability) + ', weight ' + percent(view.weight);
    tile.querySelector('.weight span').style.width = (100 * view.weight / largest).toFixed(1) + '%';
    tile.querySelector('.name').textContent = view.label;
    tile.querySelector('.share').textContent = percent(view.weight);
  });
}

function drawPictures(sheet) {
  [...$('tiles').children].forEach((tile, index) => {
    const thumb = tile.querySelector('.thumb');
    const canvas = thumb.firstChild || thumb.appendChild(document.createElement('canvas'));
    const side = sheet.width / COLUMNS;
    canvas.width = canvas.height = side;
    const x = index % COLUMNS, y = Math.floor(index / COLUMNS);
    canvas.getContext('2d').drawImage(sheet, x * side, y * side, side, side, 0, 0, side, side);
  });
}

// A sheet takes time to make, and frames go on meanwhile: the sheet's tag says whose views it shows, and the tiles are drawn
// together with it.
async function refreshPictures() {
  if (state.sheetBusy) { state.sheetStale = true; return; }
  state.sheetBusy = true;
  state.sheetStale = false;
  try {
    const response = await ask('/v1/views.jpg');
    const digest = (response.headers.get('etag') || '').replaceAll('"', '');
    const sheet = await createImageBitmap(await response.blob());
    const decision = state.recent.find(decision => decision.image.digest === digest);
    if (decision && state.pictures) {
      showViews(decision);
      drawPictures(sheet);
    }
    sheet.close();
  } catch (error) {
    hidePictures();
    text('show-views', 'The views cannot be drawn; try again');
  }
  setTimeout(() => {
    state.sheetBusy = false;
    if (state.pictures && state.sheetStale) refreshPictures();
  }, PICTURES_MS);
}

function hidePictures() {
  state.pictures = false;
  $('show-views').setAttribute('aria-expanded', 'false');
  text('show-views', 'Show pictures');
  document.querySelectorAll('.thumb canvas').forEach(canvas => canvas.remove());
  if (state.decision) showViews(state.decision);
}

function togglePictures() {
  if (state.pictures) return hidePictures();
  state.pictures = true;
  $('show-views').setAttribute('aria-expanded', 'true');
  text('show-views', 'Hide pictures');
  refreshPictures();
}

function showStatus(status) {
  state.lastStatus = status;
  const source = status.source;
  text('frames', String(source.classified));
  text('dropped', String(source.dropped));
  text('failed', String(source.failed));
  text('reopens', String(source.reopens));
  text('queue', status.queue + ' of ' + status.queue_max);
  text('memory', status.rss_bytes === null ? '–' : Math.round(status.rss_bytes / 1048576) + ' MiB');
  const recording = status.recording;
  $('recording').hidden = !recording;
  if (recording) text('recorded', recording.committed + (recording.missed ? ', ' + recording.missed + ' missed' : ''));
  const bundle = status.bundle;
  $('bundle').hidden = !bundle;
  if (bundle) text('slot', (bundle.slot ? 'slot ' + bundle.slot : 'as delivered') + ', ' + bundle.state + (bundle.given_up ? '; slot ' + bundle.given_up.slot + ' was given up: ' + bundle.given_up.why : ''));
  const lost = source.state === 'lost';
  $('picture').classList.toggle('lost', lost);
  if (lost) alarm('The camera is lost: ' + source.problem + '. It is opened again by itself.');
  else if (recording && recording.problem) alarm(recording.problem);
  else if (!source.name) alarm('No source is set: name one where the daemon is started.');
  else alarm('');
  text('link', source.name ? source.name + ', ' + source.state : 'no source');
  $('link').classList.toggle('live', source.state === 'streaming');
}

function alarm(message) {
  const node = $('alarm');
  node.hidden = !message;
  if (node.textContent !== message) node.textContent = message;
}

function addPoint(point) {
  state.points.push(point);
  const since = point.unix_ms - MINUTES * 60000;
  state.points = state.points.filter(other => other.unix_ms >= since && other.unix_ms <= point.unix_ms);
  for (const name of ['total', 'encode', 'views', 'decode', 'tune']) plot(name, point => point[name], ms);
  plot('temperature', point => point.temperature_c, celsius => celsius.toFixed(1) + ' °C');
}

function plot(id, of, unit) {
  const values = state.points.map(point => [point.unix_ms, of(point)]).filter(([, value]) => value !== null && value !== undefined);
  const svg = $(id);
  if (!values.length) {
    text(id + '-now', 'no sensor');
    return;
  }
  text(id + '-now', unit(values[values.length - 1][1]));
  const end = values[values.length - 1][0];
  const most = Math.max(...values.map(([, value]) => value)) * 1.1 || 1;
  const places = values.map(([time, value]) => (300 - (end - time) / (MINUTES * 200)).toFixed(1) + ',' + (100 - 100 * value / most).toFixed(1));
  svg.setAttribute('viewBox', '0 0 300 100');
  svg.setAttribute('preserveAspectRatio', 'none');
  let line = svg.querySelector('polyline');
  if (!line) {
    line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
    svg.append(line);
  }
  line.setAttribute('points', places.join(' '));
}

const asText = record => record.labels.map((label, index) => record.ids ? record.ids[index] + '\t' + label : label).join('\n') + '\n';

function takeLabels(record, tag) {
  state.tag = tag;
  const unchanged = $('text').value === state.savedText;
  state.savedText = asText(record);
  // What somebody is typing is not taken away from them.
  if (unchanged || !$('text').value) $('text').value = state.savedText;
  $('reset').disabled = record.origin === 'configured';
}

async function loadLabels() {
  try {
    const response = await ask('/v1/labels');
    takeLabels(await response.json(), response.headers.get('etag'));
  } catch (error) {
    said(error.message, true);
  }
}

function said(message, wrong) {
  const node = $('saved');
  node.textContent = message;
  node.classList.toggle('wrong', Boolean(wrong));
}

async function changeLabels(method, body) {
  const buttons = [$('save'), $('revert')];
  const headers = method === 'PUT' ? { 'content-type': 'text/plain' } : {};
  if (state.tag && method === 'PUT') headers['if-match'] = state.tag;
  buttons.forEach(button => { button.disabled = true; });
  said('One moment…');
  try {
    const response = await ask('/v1/labels', { method, headers, body });
    const record = await response.json();
    $('text').value = state.savedText;
    takeLabels(record, response.headers.get('etag'));
    said(counted(record.labels.length, 'label') + ' are in force.');
  } catch (error) {
    said(error.message, true);
  }
  buttons.forEach(button => { button.disabled = false; });
}

function listen() {
  const events = new EventSource('/v1/events');
  events.addEventListener('decision', event => {
    const decision = JSON.parse(event.data);
    showDecision(decision);
    const timings = decision.image.timings_ms;
    const status = state.lastStatus;
    addPoint({ unix_ms: decision.unix_ms, ...timings, temperature_c: status ? status.temperature_c : null });
  });
  events.addEventListener('status', event => showStatus(JSON.parse(event.data)));
  events.addEventListener('labels', loadLabels);
  events.onopen = () => { about(); loadLabels(); };
  events.onerror = () => {
    text('link', 'the daemon does not answer; trying again');
    $('link').classList.remove('live');
    // After a refusal a browser does not try again by itself.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
}

async function about() {
  try {
    const info = await (await ask('/v1/info')).json();
    const model = info.model;
    text('about', 'rtpt ' + info.version + (model ? ' · ' + model.bundle + ' · ' + counted(model.labels, 'label') + ' · ' + counted(model.views, 'view') + ' · ' + counted(model.threads, 'thread') : ''));
  } catch (error) {
    text('about', error.message);
  }
}

$('editor').addEventListener('submit', event => { event.preventDefault(); changeLabels('PUT', $('text').value); });
$('revert').addEventListener('click', () => { $('text').value = state.savedText; said(''); });
$('reset').addEventListener('click', () => changeLabels('DELETE'));
$('show-views').addEventListener('click', togglePictures);
ask('/v1/history').then(response => response.json()).then(points => points.forEach(addPoint)).catch(() => {}).finally(listen);
