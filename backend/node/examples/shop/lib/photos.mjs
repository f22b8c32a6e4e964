/** A photo that was sent as multipart/form-data: kept as a file for as long as the worker needs it. */

import { createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

import { Refused } from './failures.mjs';
import { problemOf } from './schemas.mjs';

/** Ten styles of 1,060 characters fit into a field, also when each is written as the 12 bytes of its JSON escapes. */
export const LIMITS = { fileSize: 20_000_000, files: 1, fields: 10, fieldSize: 130_000, headerPairs: 50 };
const MAX_NAME = 80;

/** `{path, fields, remove}`; whoever gets it removes it. */
export async function receivePhoto(request, folder) {
  if (!request.isMultipart()) throw new Refused('Send multipart/form-data with the photo in the field "photo".', 415);
  const own = await mkdtemp(join(folder, 'photo-'));
  const photo = { path: null, fields: {}, remove: () => rm(own, { recursive: true, force: true }) };
  try {
    for await (const part of sent(request.parts())) {
      if (part.valueTruncated) {
        throw new Refused(`The field "${part.fieldname}" is too long. Send at most ${LIMITS.fieldSize} bytes.`, 413);
      } else if (part.type === 'field') {
        photo.fields[part.fieldname] = part.value;
      } else if (part.fieldname === 'photo') {
        photo.path = join(own, safeName(part.filename));
        await pipeline(sent(part.file), createWriteStream(photo.path));
      } else {
        throw new Refused(`The photo belongs in the field "photo", not in "${part.fieldname}".`);
      }
    }
    if (photo.path === null) throw new Refused('There is no photo. Send one in the field "photo".');
    return photo;
  } catch (error) {
    // Many a client reads its answer only when all that it sends is taken.
    request.raw.unpipe().resume();
    await photo.remove();
    throw error;
  }
}

/** Refuses what the form's schema does not allow. */
export function checkFields(request, schema, fields) {
  const validate = request.compileValidationSchema(schema);
  if (!validate(fields)) throw new Refused(problemOf(validate.errors, 'form'));
}

/** What the client sends: when it cannot be read, that is no defect of ours, as a full disk is. */
async function* sent(source) {
  try {
    yield* source;
  } catch (error) {
    if (error.statusCode === 413) throw error;
    throw new Refused('The form is broken or ends too early. Send it whole, as multipart/form-data with its boundary.');
  }
}

/** The name that the photo had, as a name that leads nowhere else; fal shows it in the photo's URL. */
function safeName(name) {
  const plain = (name ?? '').normalize('NFC').replace(/[^\p{L}\p{N}._-]+/gu, '_').replace(/^[._-]+/, '');
  return [...plain].slice(-MAX_NAME).join('') || 'photo';
}
