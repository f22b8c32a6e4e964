/** The marketplaces that pictures and texts can be made for, as the worker calls them and as people do. */

export const PLACES = {
  amazon: 'Amazon',
  trendyol: 'Trendyol',
  hepsiburada: 'Hepsiburada',
  n11: 'n11',
  etsy: 'Etsy',
  ebay: 'eBay',
  google: 'Google',
  shopify: 'Shopify',
  walmart: 'Walmart',
  zalando: 'Zalando',
  bol: 'bol',
  allegro: 'Allegro',
  meta: 'Meta',
  instagram: 'Instagram',
  tiktok: 'TikTok (US)',
  tiktok_uk: 'TikTok (UK)',
};

export const placeName = (place) => PLACES[place] ?? place;
