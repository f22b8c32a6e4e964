from services.fal_service import FalClient

with FalClient() as client:
    image_url = client.upload_file("backend/examples/coffee.jpg")
    categories = client.analyze_product_image(image_url)["categories"]
    print(categories["subcategory"], "for", categories["target_audience"])

    result = client.generate_multiple_backgrounds(image_url, categories, styles=["Studio", "Premium"])
    for image in result["images"]:
        print(image["style_name"], image["image_url"])

    text = client.any_llm_complete(f"A 2-sentence pitch in Turkish for {categories['subcategory']}")
    print(text["output"] or text["error"])
