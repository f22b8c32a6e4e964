/** What the routes take; what is not named here is refused. */

const text = (maxLength) => ({ type: 'string', minLength: 1, maxLength, pattern: '\\S' });

export const language = text(60);

const URL_START = '^([hH][tT][tT][pP][sS]?://|data:image/)';

export const imageUrl = { type: 'string', maxLength: 10_485_760, pattern: URL_START };

export const categories = {
  type: 'object',
  minProperties: 1,
  maxProperties: 50,
  propertyNames: { maxLength: 100 },
  additionalProperties: { type: 'string', maxLength: 500 },
};

export const styles = {
  type: 'array',
  minItems: 1,
  maxItems: 10,
  items: {
    anyOf: [
      { enum: ['Studio', 'Lifestyle', 'Premium'] },
      {
        type: 'object',
        required: ['name', 'description'],
        additionalProperties: false,
        properties: { name: text(60), description: text(1000) },
      },
    ],
  },
};

/** Which places there are, the worker knows. */
export const places = { type: 'array', minItems: 1, maxItems: 20, items: text(40) };

const flag = { type: 'boolean' };
const fidelity = { enum: ['check', 'lock', 'retry'] };

const object = (properties, required = []) => ({ type: 'object', additionalProperties: false, properties, required });

export const analyzeProduct = object({ image_url: imageUrl }, ['image_url']);
export const generate = object({ image_url: imageUrl, categories, styles }, ['image_url', 'categories']);
export const describe = object({ prompt: text(20_000), categories, language });
export const upload = object({});
const wanted = { styles, places, packshot: flag, listing: flag, fidelity };
export const product = object({ language, ...wanted });
export const estimate = object(wanted);

const KINDS = { string: 'a text', object: 'a JSON object', array: 'a list', boolean: 'true or false' };
const atMost = (what) => ({ limit }) => `may have at most ${limit} ${what}`;
/** What the validator's keywords ask for. */
const RULES = {
  type: ({ type }) => `must be ${KINDS[type]}`,
  enum: ({ allowedValues }) => `must be one of ${allowedValues.join(', ')}`,
  pattern: () => 'must not be blank',
  minLength: () => 'must not be empty',
  minItems: () => 'must not be empty',
  minProperties: () => 'must not be empty',
  maxLength: atMost('characters'),
  maxItems: atMost('entries'),
  maxProperties: atMost('entries'),
};

const A_STYLE =
  'Each style is "Studio", "Lifestyle", "Premium" or {"name", "description"} of at most 60 and 1000 characters.';
const AN_IMAGE_URL = 'image_url must be the URL of an image: https://…, http://… or data:image/….';

/** What is wrong with an input, from the validator's errors, for the one who sent it. */
export function problemOf([{ instancePath, keyword, params, propertyName }], where = 'body') {
  const path = instancePath.slice(1).replaceAll('/', '.') || `The ${where}`;
  const field = propertyName === undefined ? path : `Each name in ${path}`;
  if (field.startsWith('styles.')) return A_STYLE;
  if (field === 'image_url' && keyword !== 'maxLength') return AN_IMAGE_URL;
  if (keyword === 'additionalProperties') return `${field} has the unknown field "${params.additionalProperty}".`;
  if (keyword === 'required') return `${field} lacks "${params.missingProperty}".`;
  return `${field} ${RULES[keyword](params)}.`;
}
