/** A photo that was sent as multipart/form-data: kept as a file for as long as the worker needs it. */

import { createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { Refused } from './failures.mjs';

export const LIMITS = { fileSize: 20_000_000, files: 1, fields: 10, fieldSize: 20_000, headerPairs: 50 };
const MAX_NAME = 80;

/** `{path, fields, remove}`; whoever gets it removes it. */
export async function receivePhoto(request, folder) {
  if (!request.isMultipart()) throw new Refused('Send multipart/form-data with the photo in the field "photo".', 415);
  const own = await mkdtemp(join(folder, 'photo-'));
  const photo = { path: null, fields: {}, remove: () => rm(own, { recursive: true, force: true }) };
  try {
    for await (const part of request.parts()) {
      if (part.type === 'field') {
        photo.fields[part.fieldname] = part.value;
      } else if (part.fieldname === 'photo') {
        photo.path = join(own, safeName(part.filename));
        await pipeline(part.file, createWriteStream(photo.path));
      } else {
        part.file.resume();
        throw new Refused(`The photo belongs in the field "photo", not in "${part.fieldname}".`);
      }
    }
    if (photo.path === null) throw new Refused('There is no photo. Send one in the field "photo".');
    return photo;
  } catch (error) {
    await photo.remove();
    throw error;
  }
}

/** The name that the photo had, as a name that leads nowhere else; fal shows it in the photo's URL. */
function safeName(name) {
  const plain = (name ?? '').normalize('NFC').replace(/[^\p{L}\p{N}._-]+/gu, '_').replace(/^[._-]+/, '');
  return [...plain].slice(-MAX_NAME).join('') || 'photo';
}
